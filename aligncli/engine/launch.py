"""Several trainings side by side on this machine, each in a process of its own.

A training that was stopped goes on from its checkpoint, one that is finished is not started again. Stopping
the launcher stops every child once, so that each leaves a loadable checkpoint.
"""

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from aligncli.engine.jobs import (
    LaunchReporter,
    Progress,
    add_seconds,
    describe_failure,
    log_path,
    training_command,
)
from aligncli.engine.slurm.queue import record_path
from aligncli.engine.study_plan import Job
from aligncli.errors import UserError

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Child:
    """A training that runs."""

    job: Job
    process: subprocess.Popen[bytes]
    device: str
    started: float

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.monotonic() - self.started


@dataclass(frozen=True)
class LocalLauncher:
    """Trainings on this machine.

    Args:
        parallel: how many at once, and they share the CPU's threads; one that starts alone has them all.
        devices: each takes the one that fewest others use.
        download: allow ImageNet weights to be fetched.
    """

    parallel: int
    devices: tuple[str, ...]
    download: bool = False

    def run(
        self, name: str, jobs: Sequence[Job], reporter: LaunchReporter, costs: Mapping[Path, float] | None = None
    ) -> None:
        """See Launcher. Raises UserError where a training is in Slurm's hands: nobody may write its folder twice."""
        progress = Progress(name, jobs, reporter, costs)
        elsewhere = [record_path(job) for job in progress.waiting if record_path(job).is_file()]
        if elsewhere:
            raise UserError(
                f"{len(elsewhere)} trainings were submitted to Slurm ({elsewhere[0]}): go on with --launcher slurm, "
                "or delete these files if their jobs were cancelled"
            )
        with stopping_children(reporter) as children:
            while progress.waiting or children:
                ready = progress.take_ready(self.parallel - len(children))
                threads = threads_for(len(children) + len(ready))
                for job in ready:
                    children.append(self.start(job, self.free_device(children), threads))
                if not children:
                    progress.give_up()
                    break
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for child in [child for child in children if child.process.poll() is not None]:
                    children.remove(child)
                    progress.end(child.job, seconds=child.seconds, fault=fault_of(child))
                progress.tell([child.job for child in children])
        progress.raise_faults()

    def free_device(self, children: Sequence[Child]) -> str:
        """The device that fewest trainings run on, the first of several."""
        used = [child.device for child in children]
        return min(self.devices, key=used.count)

    def start(self, job: Job, device: str, threads: int) -> Child:
        """Start a training, or go on with it where it left a checkpoint; `threads` as for `training_command`."""
        command = training_command(job, device=device, threads=threads, download=self.download)
        with log_path(job).open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on once
            )
        return Child(job, process, device, time.monotonic())


def devices_for(name: str) -> tuple[str, ...]:
    """`auto` is every CUDA device of this machine, or its CPU; any other name is that device alone."""
    if name != "auto":
        return (name,)
    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


def threads_for(parallel: int) -> int:
    """CPU threads of each of `parallel` trainings, so that together they use the machine once; 0: torch's default."""
    return 0 if parallel <= 1 else max(1, torch.get_num_threads() // parallel)


@contextmanager
def stopping_children(reporter: LaunchReporter) -> Iterator[list[Child]]:
    """A list of children; whatever ends the block early interrupts each once and waits for its checkpoint."""
    children: list[Child] = []
    try:
        yield children
    except BaseException:
        for child in children:
            child.process.send_signal(signal.SIGINT)
        for child in children:
            child.process.wait()
            add_seconds(child.job, child.seconds)
        reporter.message(
            "what is finished is kept, and the rest has checkpoints: the same command again goes on from there"
        )
        raise


def fault_of(child: Child) -> str:
    """What a training that has ended failed of; empty where it did not."""
    code = child.process.returncode
    return describe_failure(code, log_path(child.job)) if code else ""
