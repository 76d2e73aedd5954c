"""Signals: the first SIGINT or SIGTERM lets the running step end, the second ends now.

Inside a Slurm job SIGUSR2 does as well: what `#SBATCH --signal=USR2@180` sends before a time limit and, where the
cluster is set up so, before a preemption (slurm/requeue.py).

One request can arrive twice: Slurm signals a job's processes and their parent passes it on. So the same signal
within a second of the first is taken for the same one.
"""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from aligncli.environment import slurm_job

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REQUEUE_SIGNAL = getattr(signal, "SIGUSR2", None)  # not on Windows
SAME_SIGNAL_SECONDS = 1.0
RESEND_SECONDS = 0.01


class Interrupted(Exception):
    """Training stopped on request after `iteration` steps; `run_dir` holds a checkpoint to resume from."""

    def __init__(self, run_dir: Path, iteration: int, signal_number: int) -> None:
        super().__init__(f"stopped after iteration {iteration}; {run_dir} holds a checkpoint")
        self.run_dir = run_dir
        self.iteration = iteration
        self.exit_code = 128 + signal_number


class StopRequest:
    """Which signal came, if any, and when."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.received = 0.0

    def repeats(self, number: int) -> bool:
        """Whether a further signal is the first one come twice."""
        return number == self.signal_number and time.monotonic() - self.received < SAME_SIGNAL_SECONDS


def stopping_signals() -> tuple[int, ...]:
    """SIGINT and SIGTERM, and Slurm's signal inside a job, unless whoever started this process has it ignored."""
    if REQUEUE_SIGNAL is None or slurm_job() is None or signal.getsignal(REQUEUE_SIGNAL) == signal.SIG_IGN:
        return SIGNALS
    return (*SIGNALS, REQUEUE_SIGNAL)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first signal into a request; the second does what it did before, as do all after the block.

    Only the main thread may set handlers; the caller runs there.
    """
    request = StopRequest()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if request.signal_number is None:
            request.signal_number, request.received = number, time.monotonic()
        elif not request.repeats(number):
            give_back()
            signal.raise_signal(number)

    def give_back() -> None:
        for name, handler in previous.items():
            signal.signal(name, handler)

    for name in stopping_signals():
        previous[name] = signal.signal(name, handle)
    try:
        yield request
    finally:
        give_back()


@contextmanager
def swallowed_interrupts_sent_again() -> Iterator[None]:
    """Let no Ctrl-C get lost in a destructor or a weak reference's callback, where Python prints and forgets it.

    matplotlib's are called hundreds of times a figure.
    """
    tell = sys.unraisablehook
    sent: list[threading.Timer] = []

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            tell(unraisable)
            return
        sent.append(threading.Timer(RESEND_SECONDS, _interrupt_main_thread))  # not now: still inside the destructor
        sent[-1].daemon = True
        sent[-1].start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = tell
        for timer in sent:
            timer.cancel()


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)  # also ends a wait, which `interrupt_main` lets go on
    else:
        _thread.interrupt_main()


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the program, with exit code 143, so that child processes are ended on the way out.

    Slurm's signal does the same, with its own exit code.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise SystemExit(128 + number)

    previous = {name: signal.signal(name, leave) for name in stopping_signals() if name != signal.SIGINT}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
