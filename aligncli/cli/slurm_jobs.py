"""`aligncli train` and Slurm: submitting it as a job, and inside one going back into the queue."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from aligncli.cli.launch import check_processes, has_checkpoint
from aligncli.cli.render import Output
from aligncli.cli.train_job import TrainJob
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.slurm.requeue import asks_for_requeue, requeue
from aligncli.engine.slurm.settings import SlurmSettings, parse_settings
from aligncli.environment import launched_place, slurm_job
from aligncli.errors import CheckpointError

if TYPE_CHECKING:
    from aligncli.engine.elastic import Processes


def asked_settings(assignments: Sequence[str] | None, processes: Processes | None) -> SlurmSettings:
    """What `--slurm` says, and for the rest what this many processes on a machine need. Raises UserError."""
    return parse_settings(assignments or (), processes=processes.per_machine if processes else 1)


def submit(job: TrainJob, processes: Processes | None, settings: SlurmSettings, *, resume: bool) -> None:
    """Give the training to Slurm and say so. Raises UserErrors."""
    from aligncli.cli.describe import shell_path

    output = Output(json=job.json)
    with output.waiting():
        from aligncli.engine.slurm.train import submit_training
    if processes is not None:
        check_processes(job, processes)
    if resume and not has_checkpoint(job.run_dir):
        raise CheckpointError(f"{job.run_dir} holds no checkpoint to resume from: submit it without --resume")
    machines = processes.min_machines if processes else 1
    command = training_command(job, processes, settings, resume=resume)
    submitted = submit_training(job.recipe, job.run_dir, command, settings=settings, machines=machines)
    number = submitted.job_id
    output.line(f"submitted Slurm job {number}: {job.recipe.name} into {job.run_dir}")
    output.line(f"its output: {shell_path(submitted.log)}")
    output.line(f"`squeue --jobs={number}` says how it is, `scancel {number}` ends it")
    output.data({"slurm_job": number, "run": str(job.run_dir), "recipe": job.recipe.name, "log": str(submitted.log)})


def training_command(job: TrainJob, processes: Processes | None, settings: SlurmSettings, *, resume: bool) -> list[str]:
    """What each machine of the job runs; it ends in the option that names the recipe."""
    device = settings.device if job.device == "auto" else job.device
    command = [sys.executable, "-P", "-m", "aligncli", "train", "--out", str(job.run_dir), "--device", device]
    command += ["--threads", str(job.threads)] if job.threads else []
    command += ["--code", str(job.code)] if job.code else []
    command += ["--download"] if job.download else []
    command += ["--resume"] if resume else []
    if processes is not None:
        command += ["--nproc", str(processes.per_machine), "--nodes", str(processes.min_machines)]
        command += ["--max-restarts", str(processes.max_restarts)]
    return [*command, "--recipe-json"]


@contextmanager
def requeueing(job: TrainJob) -> Iterator[None]:
    """Inside a Slurm job whose signal stops the training: put the job back into the queue, once for all machines.

    Not where nothing was added to what was there before: a limit that leaves no time for a step and its
    checkpoint would be run into for ever.
    """
    slurm = slurm_job()
    if slurm is None or slurm.task > 0 or launched_place() is not None:
        yield
        return
    from aligncli.engine.run_folder import RunFolder

    run = RunFolder(job.run_dir)
    before = run.newest_checkpoint()
    try:
        yield
    except (Interrupted, typer.Exit) as leaving:
        if asks_for_requeue(leaving.exit_code) and run.newest_checkpoint() > before:
            Output(json=job.json).note(requeue(slurm))
        raise
