"""What a loader's worker process does with signals: it lives as long as the main process wants it to.

Ctrl-C in a terminal, `kill` of a process group and some of Slurm's process trackers reach workers too. One that
died of it would take the run with it before the step is finished and saved.

The main process is not always the parent: where processes come from a fork server (Linux, from Python 3.14 on), the
server is, and torch's own look for a parent that is gone never ends a worker there: worker and server wait for
each other.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)}


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Processes started in here meet no signal before `leave_signals_to_the_main_process` has run in them.

    They inherit the mask. Starting takes seconds where they import torch anew, and a signal then would end them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where nobody else signals a worker
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # starting it later would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_main_process(*, orphaned: Callable[[], None]) -> None:
    """Ignore SIGINT, Slurm's SIGUSR2, and SIGTERM unless the main process sends it; called in a worker.

    `orphaned` is called where the main process is gone without a word, before the worker ends too.
    """
    for number in SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    tells_who_sent_it = hasattr(signal, "sigwaitinfo")  # not on macOS and Windows
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGTERM} if tells_who_sent_it else SIGNALS)
    if tells_who_sent_it:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_main_process_says, daemon=True).start()
    threading.Thread(target=_end_with_the_main_process, args=(orphaned,), daemon=True).start()


def _end_when_the_main_process_says() -> None:
    main = multiprocessing.parent_process()
    while main and signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)


def _end_with_the_main_process(orphaned: Callable[[], None]) -> None:
    if main := multiprocessing.parent_process():
        main.join()
        orphaned()
        os._exit(0)
