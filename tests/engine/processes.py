"""Processes to do harm to: forked from the tests', so that none waits for torch's import."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch


class Process:
    """Runs `function` in a session of its own, on one thread; its output goes to `log`.

    It ends with the code of the SystemExit that `function` raises, 0 where it returns and 1 for another exception.
    """

    def __init__(self, function: Callable[[], object], log: Path) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                torch.set_num_threads(1)  # others did not survive the fork
                code = _run(function, log)
            finally:
                os._exit(code)

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, negative for the signal it died of, as subprocess has it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.killpg(self.pid, signal.SIGKILL)
        raise AssertionError(f"it still runs: {self.log.read_text()}")

    def wait_for(self, path: Path, text: str, seconds: float = 120.0) -> None:
        """Until the file has the text in it."""
        deadline = time.monotonic() + seconds
        while not (path.is_file() and text in path.read_text()):
            assert time.monotonic() < deadline, self.log.read_text()
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), self.log.read_text()
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


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def _run(function: Callable[[], object], log: Path) -> int:
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
