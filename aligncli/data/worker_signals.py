"""What a loader's worker process does with signals: it lives as long as the main process wants it to.

Ctrl-C in a terminal, `kill` of a process group and some of Slurm's process trackers reach workers too. One that
died of it would take the run with it before the step is finished and saved.
"""

import os
import signal
import threading


def leave_signals_to_the_main_process(worker: int) -> None:
    """Ignore SIGINT, Slurm's SIGUSR2, and SIGTERM unless the main process sends it; a DataLoader's `worker_init_fn`."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows, which do not tell who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_main_process_says, daemon=True).start()


def _end_when_the_main_process_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
