"""Trainings on a Slurm cluster, one job each, submitted and collected through submitit.

The jobs outlive the launcher: stopped or killed, it leaves them running, and the next start picks them up by
the number beside each run. A job that Slurm ended before its training was finished (time limit, preemption,
a node's failure) is submitted again and goes on from its checkpoint, as long as the launcher runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aligncli.engine.jobs import LaunchReporter, Progress, add_seconds, log_path, training_command
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.slurm.node import run_command
from aligncli.engine.slurm.queue import Ending, Submission, read_record, record_path
from aligncli.engine.slurm.settings import SlurmSettings
from aligncli.engine.slurm.submit import slurm_executor, submit
from aligncli.engine.study_plan import Job

if TYPE_CHECKING:
    from submitit import AutoExecutor

SECONDS_BETWEEN_LOOKS = 10.0


@dataclass(frozen=True)
class SlurmLauncher:
    """Trainings as jobs of a Slurm cluster, submitted from a machine that has its commands.

    Args:
        folder: submitit's own, on a file system that the nodes share, as the runs' must be.
        settings: what each training asks for.
        parallel: how many Slurm is given at a time; None: all at once, and Slurm's limits decide.
        device: for every training; `auto` is what the settings ask for.
        download: allow ImageNet weights to be fetched, by the nodes.
    """

    folder: Path
    settings: SlurmSettings
    parallel: int | None = None
    device: str = "auto"
    download: bool = False

    def run(
        self, name: str, jobs: Sequence[Job], reporter: LaunchReporter, costs: Mapping[Path, float] | None = None
    ) -> None:
        """See Launcher. Raises UserError where submitit or Slurm's commands are missing, or sbatch refuses."""
        progress = Progress(name, jobs, reporter, costs)
        progress.waiting += take_uncollected(progress)
        if progress.waiting:
            executor = slurm_executor(self.folder, self.settings.parameters())
            with leaving_jobs(reporter) as queue:
                queue += self.pick_up(progress)
                while progress.waiting or queue:
                    self.submit_waiting(executor, queue, progress)
                    look(queue, progress)
                    if queue:
                        time.sleep(SECONDS_BETWEEN_LOOKS)
        progress.raise_faults()

    def pick_up(self, progress: Progress) -> list[Submission]:
        """The jobs of an earlier start that wait, run, or are finished; others' trainings are left to submit."""
        from submitit import SlurmJob

        kept: list[Submission] = []
        for job in [job for job in progress.waiting if record_path(job).is_file()]:
            job_id, from_iteration = read_record(job)
            known_at = float("-inf")  # not in this process
            kept.append(Submission(job, SlurmJob(self.folder, job_id), from_iteration, known_at))
        for submission in list(kept):
            ending = submission.ending()
            if ending is not None and not is_success(submission, ending):
                kept.remove(submission)
                give_back(submission, ending, progress)
        if kept:
            progress.reporter.message(f"picked up {describe_jobs(kept)}")
        progress.waiting = [job for job in progress.waiting if job not in [item.job for item in kept]]
        return kept

    def submit_waiting(self, executor: AutoExecutor, queue: list[Submission], progress: Progress) -> None:
        """Give Slurm what it may be given now."""
        room = len(progress.waiting) if self.parallel is None else self.parallel - len(queue)
        submitted = []
        for job in progress.take_ready(max(room, 0)):
            submitted.append(self.submit(executor, job))
            queue.append(submitted[-1])
        if not queue:
            progress.give_up()
        if submitted:
            progress.reporter.message(f"submitted {describe_jobs(submitted)}")

    def submit(self, executor: AutoExecutor, job: Job) -> Submission:
        """Submit a training, or going on with it where it left a checkpoint. Raises UserError with sbatch's words."""
        device = self.settings.device if self.device == "auto" else self.device
        command = training_command(job, device=device, threads=self.settings.cpus_per_task, download=self.download)
        log = log_path(job)
        log.unlink(missing_ok=True)  # the new one says that the job has started
        handle = submit(executor, job.run_dir.name, run_command, command, log)
        submission = Submission(job, handle, RunFolder(job.run_dir).newest_checkpoint())
        submission.write_record()
        return submission


def take_uncollected(progress: Progress) -> list[Job]:
    """Trainings that have finished while no launcher looked: taken from those that ended, to be concluded."""
    uncollected = [job for job in progress.ended if record_path(job).is_file()]
    progress.ended = [job for job in progress.ended if job not in uncollected]
    return uncollected


def look(queue: list[Submission], progress: Progress) -> None:
    """Take the jobs that have ended from the queue, and tell how far the others are."""
    for submission in list(queue):
        ending = submission.ending()
        if ending is None:
            continue
        queue.remove(submission)
        if not is_success(submission, ending) and submission.goes_on(ending):
            give_back(submission, ending, progress)
            continue
        fault = "" if is_success(submission, ending) else submission.describe_fault(ending)
        progress.end(submission.job, seconds=ending.seconds, fault=fault)
        record_path(submission.job).unlink()
    started = [item.job for item in queue if item.has_started]
    progress.tell(started, queued=len(queue) - len(started))


def is_success(submission: Submission, ending: Ending) -> bool:
    """Whether the training is finished; one that was killed after that is."""
    return (ending.outcome is not None and ending.outcome.exit_code == 0) or submission.job.is_finished()


def give_back(submission: Submission, ending: Ending, progress: Progress) -> None:
    """Let a training whose job has ended wait for another job."""
    job = submission.job
    add_seconds(job, ending.seconds)
    record_path(job).unlink()
    if job not in progress.waiting:
        progress.waiting.insert(0, job)
    progress.reporter.message(
        f"{job.run_dir.name}: Slurm job {submission.handle.job_id} ended {ending.state} "
        f"after iteration {RunFolder(job.run_dir).newest_checkpoint()}; it is submitted again"
    )


def describe_jobs(submissions: Sequence[Submission]) -> str:
    """`2 Slurm jobs: 101 102`."""
    number = "1 Slurm job" if len(submissions) == 1 else f"{len(submissions)} Slurm jobs"
    return f"{number}: {job_ids(submissions)}"


def job_ids(submissions: Sequence[Submission]) -> str:
    """As `scancel` takes them."""
    return " ".join(item.handle.job_id for item in submissions)


@contextmanager
def leaving_jobs(reporter: LaunchReporter) -> Iterator[list[Submission]]:
    """A queue; whatever ends the block early says which jobs go on."""
    queue: list[Submission] = []
    try:
        yield queue
    except BaseException:
        if queue:
            reporter.message(
                f"{describe_jobs(queue)} left to the cluster: the same command again collects them, "
                f"`scancel {job_ids(queue)}` ends them"
            )
        raise
