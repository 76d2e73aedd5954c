"""A training that goes on in its own Slurm job: put back into the queue, it finds its checkpoint.

Slurm's signal comes some time before a time limit, as `--signal=USR2@180` asks, and before a preemption where
slurm.conf says `PreemptParameters=send_user_signal`. After a preemption by SIGTERM Slurm requeues the job itself.
"""

from __future__ import annotations

import subprocess

from aligncli.engine.interrupt import REQUEUE_SIGNAL
from aligncli.environment import SlurmJob

SECONDS_TO_ANSWER = 60.0


def asks_for_requeue(exit_code: int) -> bool:
    """Whether a training with this exit code was stopped by Slurm's signal."""
    return REQUEUE_SIGNAL is not None and exit_code == 128 + REQUEUE_SIGNAL


def requeue(job: SlurmJob) -> str:
    """Put the job back into Slurm's queue; returns a line that says so, or why that failed."""
    command = ["scontrol", "requeue", job.number]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Slurm job {job.number} is not requeued: {error}"
    if asked.returncode:
        words = "; ".join(asked.stderr.split("\n")).strip("; ") or f"scontrol ended with {asked.returncode}"
        return f"Slurm job {job.number} is not requeued: {words}"
    return f"Slurm job {job.number} is requeued and goes on from the checkpoint"
