"""Where every error of a command ends.

A user's error is one line and exit code 2, a bug is one line and exit code 1 (`--debug` shows the
traceback), Ctrl-C is 130.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import typer

from aligncli.cli.render import print_error
from aligncli.engine.faults import LONE_FAULT, Elsewhere, LoneFault
from aligncli.engine.interrupt import Interrupted
from aligncli.errors import UserError, first_line

KEYBOARD_INTERRUPT = 130  # exit code
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
# Click's class, or the copy of it that newer typers carry: the public name is that of a subclass.
UsageError: Any = typer.BadParameter.__mro__[1]


def guard(command: Callable[[], int | None], *, debug: bool) -> int:
    """The exit code of a command; every error ends here."""
    try:
        code = command()
    except KeyboardInterrupt:
        code = KEYBOARD_INTERRUPT
    except Elsewhere as leaving:
        return leaving.exit_code
    except LoneFault as fault:
        print_error(str(fault), debug=debug)
        return LONE_FAULT
    except UserError as error:
        print_error(str(error), debug=debug)
        return 2
    except UsageError as error:
        name = error.ctx.command_path if error.ctx else "aligncli"
        message = " ".join(error.format_message().split()).rstrip(".")
        message = message.replace(": Value error, ", ": ")  # newer typers' own words
        print_error(f"{message} (see {name} --help)", debug=debug)
        return error.exit_code
    except Interrupted as stop:
        print_error(
            f"after iteration {stop.iteration}, a checkpoint is saved; go on with: "
            f"aligncli train --resume --out {shlex.quote(str(stop.run_dir))}",
            label="stopped",
        )
        return stop.exit_code
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error), debug=debug)
        return 2
    except Exception as error:  # noqa: BLE001  (the boundary: whatever comes here is our bug)
        if "torchvision::" in str(error):  # as in "operator torchvision::nms does not exist"
            print_error(f"torchvision does not work ({first_line(error)}): aligncli doctor says why", debug=debug)
            return 2
        if NO_MEMORY in str(error):  # of torch's allocator, which raises a plain RuntimeError on a CPU
            print_error("not enough memory: lower the size of batch, images or network", debug=debug)
            return 2
        hint = "" if debug else " (run again with --debug for the traceback)"
        print_error(f"{type(error).__name__}: {error}{hint}", label="internal error", debug=debug)
        return 1
    if code == KEYBOARD_INTERRUPT:  # typer has turned the exception into its exit code
        print_error("by Ctrl-C", label="stopped")
    return code or 0
