"""Signals: the first SIGINT or SIGTERM lets the running step end, the second ends now."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training stopped on request after `iteration` steps; `run_dir` holds a checkpoint to resume from."""

    def __init__(self, run_dir: Path, iteration: int, signal_number: int) -> None:
        super().__init__(f"stopped after iteration {iteration}; {run_dir} holds a checkpoint")
        self.run_dir = run_dir
        self.iteration = iteration
        self.exit_code = 128 + signal_number


class StopRequest:
    """Which signal came, if any."""

    def __init__(self) -> None:
        self.signal_number: int | None = None


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first signal into a request, and give the old handlers back for the second and on exit.

    Only the main thread may set handlers; the caller runs there.
    """
    request = StopRequest()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        for name, handler in previous.items():
            signal.signal(name, handler)

    for name in SIGNALS:
        previous[name] = signal.signal(name, handle)
    try:
        yield request
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
