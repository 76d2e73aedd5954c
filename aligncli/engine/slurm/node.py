"""What a Slurm job runs on its node: a training's command, told to stop before Slurm kills it.

Imports no torch: this process only waits beside the training, for days, or becomes it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn


@dataclass(frozen=True)
class Outcome:
    """How a training's process ended. `signal` is Slurm's that it was stopped for; empty where it ended by itself."""

    exit_code: int
    seconds: float
    signal: str = ""


def run_command(command: Sequence[str], log: Path) -> Outcome:
    """Run a training with its output in `log`; on Slurm's first signal, ask it for a checkpoint and its end.

    Slurm sends SIGUSR2 some time before the time limit, and SIGTERM when it cancels or preempts the job. With
    proctrack/cgroup only this process gets them, so they are passed on. submitit's own handlers, which would
    requeue the job on SIGUSR2, are replaced: the launcher submits a new job, see slurm.py.
    """
    started = time.monotonic()
    received: list[int] = []
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the training inherits it: other proctracks signal it as well
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if not received:  # a second one would end the training without its checkpoint
            process.send_signal(signal.SIGTERM)
        received.append(number)

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, stop)
    exit_code = process.wait()
    stopped = signal.Signals(received[0]).name if received else ""
    return Outcome(exit_code, time.monotonic() - started, stopped)


def become_training(command: Sequence[str], meets: bool) -> NoReturn:
    """Turn this process into the training, which then gets Slurm's signals itself.

    `meets`: other machines run it as well, and all meet on the first of them.
    """
    if meets:
        from submitit.helpers import TorchDistributedEnvironment

        place = TorchDistributedEnvironment()
        command = [*command, "--rdzv", f"{place.master_addr}:{place.master_port}"]
    os.execv(command[0], list(command))
