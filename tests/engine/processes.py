"""Processes to do harm to: forked from one that has imported torch and done nothing else.

A fork of the tests' own process would not do: torch's autograd refuses to work in a fork of a process in which it
started threads, which some tests make it do, and other libraries' threads hang there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from aligncli.cli.app import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "torch", "torchvision", "aligncli.engine.train", "aligncli.cli.train"])


class Process:
    """Runs `function` in a session of its own, on one thread; its output goes to `log`.

    `function` is picklable: one of a module, or a functools.partial of it; `environment` is set before it runs. The
    process ends with the code of the SystemExit that `function` raises, 0 where it returns and 1 for another exception.
    """

    def __init__(self, function: Callable[[], object], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        log.write_text("")
        self._process = FORKS.Process(target=_run, args=(function, log, environment or {}))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, negative for the signal it died of, as subprocess has it."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._give_up("it still runs")
        assert self._process.exitcode is not None
        return self._process.exitcode

    def wait_for(self, path: Path, text: str, seconds: float = 120.0) -> None:
        """Until the file has the text in it."""
        deadline = time.monotonic() + seconds
        while not (path.is_file() and text in path.read_text()):
            if self._process.exitcode is not None or time.monotonic() > deadline:
                self._give_up(f"{text!r} did not come into {path}")
            time.sleep(0.01)

    def signal_all(self, number: signal.Signals) -> None:
        """To the process and all of its children."""
        os.killpg(self.pid, number)

    def children_left(self, seconds: float = 10.0) -> bool:
        """Whether its session has a process in it, also after some time to end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.05)
        return True

    def _give_up(self, why: str) -> None:
        if self._process.exitcode is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join()
        raise AssertionError(f"{why}: {self.log.read_text()}")


class ForkedCommand(Process):
    """In the place of subprocess.Popen: `python -m aligncli ...`, without the seconds in which it imports torch."""

    def __init__(self, command: Sequence[str], *, stdout: IO[bytes], **options: object) -> None:
        python, safe, module, name, *arguments = command
        assert (python, safe, module, name) == (sys.executable, "-P", "-m", "aligncli")
        assert options == {
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }, "it can do nothing else"
        super().__init__(partial(main, arguments), Path(stdout.name))

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @classmethod
    def stand_in(cls, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the trainings of a LocalLauncher. A test of their processes themselves needs real ones."""
        stand_in = SimpleNamespace(**vars(subprocess) | {"Popen": cls})
        monkeypatch.setattr("aligncli.engine.launch.subprocess", stand_in)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def _run(function: Callable[[], object], log: Path, environment: dict[str, str]) -> None:
    import torch

    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the platform's own, not the fork server's
    os.environ.update(environment)
    tempfile.tempdir = str(log.parent)  # os._exit below leaves what is there
    torch.set_num_threads(1)
    code = 1
    try:
        code = _exit_code(function, log)
    finally:
        os._exit(code)  # without what multiprocessing does at the end: children are to be ended by `function`


def _exit_code(function: Callable[[], object], log: Path) -> int:
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        try:
            function()
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:  # noqa: BLE001  (the process ends here)
            traceback.print_exc()
            return 1
        finally:
            sys.stdout.flush()
    return 0
