"""One training's job on a Slurm cluster: its number, kept beside the run, and how it ended.

A job that submitit would wait for without end is told from one that goes on: preempted (submitit takes it for
requeued, ours are not, see settings.py), or unknown to Slurm's accounts.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aligncli.engine.jobs import describe_failure, last_output, log_path
from aligncli.engine.run_folder import RunFolder, write_json
from aligncli.engine.slurm.node import Outcome
from aligncli.engine.study_plan import Job

if TYPE_CHECKING:
    from submitit import Job as Handle

SECONDS_UNKNOWN = 600.0  # after which squeue is asked about a job that sacct does not know
UNKNOWN, PREEMPTED, TIMEOUT = "UNKNOWN", "PREEMPTED", "TIMEOUT"
NOT_THE_TRAININGS_FAULT = (PREEMPTED, "NODE_FAIL", "BOOT_FAIL")


@dataclass(frozen=True)
class Ending:
    """Slurm's word for how a job ended, and what its node reported; None where it was killed before it could."""

    state: str
    outcome: Outcome | None

    @property
    def seconds(self) -> float:
        """On the node; 0 where nobody reported them."""
        return self.outcome.seconds if self.outcome else 0.0


@dataclass
class Submission:
    """A training that Slurm has been given.

    Args:
        from_iteration: where it goes on from.
        known_at: when the job was last known to be in Slurm's hands, of time.monotonic().
    """

    job: Job
    handle: Handle[Outcome]
    from_iteration: int
    known_at: float = field(default_factory=time.monotonic)

    @property
    def has_started(self) -> bool:
        """Whether its log has been opened."""
        return log_path(self.job).is_file()

    def write_record(self) -> None:
        """Leave its number for another start of the launcher."""
        record = {"job_id": self.handle.job_id, "from_iteration": self.from_iteration}
        write_json(record_path(self.job), record)

    def ending(self) -> Ending | None:
        """How it ended; None while it waits or runs."""
        reported = self.handle.paths.result_pickle.is_file()
        state = self._state()
        if not (reported or state == PREEMPTED or self.handle.done()):
            return self._ending_unknown(state)
        # The result may reach this machine later than the state; submitit waits for it, except where it is preempted.
        failed = not reported and state == PREEMPTED
        outcome = None if failed or self.handle.exception() else self.handle.result()
        if outcome and (outcome.signal or outcome.exit_code < 0):  # stopped, or killed, for example for its memory
            state = self._state(force=True)
            if state in ("RUNNING", "COMPLETING"):
                return None  # why is not in the accounts yet
            if outcome.signal == "SIGUSR2" and state in ("COMPLETED", UNKNOWN):
                state = TIMEOUT  # it came before the limit, and the training ended in time
        return Ending(state, outcome)

    def goes_on(self, ending: Ending) -> bool:
        """Whether the training, not finished, belongs into another job: Slurm's doing, or time that was too short."""
        if ending.state in NOT_THE_TRAININGS_FAULT:
            return True
        # A limit that leaves no time for a checkpoint would be run into for ever.
        return ending.state == TIMEOUT and RunFolder(self.job.run_dir).newest_checkpoint() > self.from_iteration

    def describe_fault(self, ending: Ending) -> str:
        """Why it failed: the training's exit code or Slurm's word, and the last line of either."""
        log = log_path(self.job)
        if ending.outcome and ending.outcome.exit_code > 0 and not ending.outcome.signal:
            return describe_failure(ending.outcome.exit_code, log)
        last = last_output(self.handle.paths.stderr) or last_output(log) or "no output"
        return f"(Slurm job {self.handle.job_id} ended {ending.state}, log {log}): {last}"

    def _state(self, *, force: bool = False) -> str:
        """sacct's word, without `by USER`; asked rarely unless forced."""
        state = self.handle.get_info(mode="force" if force else "standard").get("State", UNKNOWN)
        return state.split()[0]

    def _ending_unknown(self, state: str) -> Ending | None:
        """The ending of a job that neither sacct nor squeue knows; clusters without accounts know by squeue alone."""
        now = time.monotonic()
        silent = state == UNKNOWN and now - self.known_at > SECONDS_UNKNOWN
        if silent and is_gone(self.handle.job_id):
            return Ending(UNKNOWN, None)
        if silent or state != UNKNOWN:
            self.known_at = now
        return None


def is_gone(job_id: str) -> bool:
    """Whether squeue says that the job has left the queue; not where squeue itself fails."""
    asked = subprocess.run(["squeue", "--noheader", f"--jobs={job_id}"], capture_output=True, text=True, check=False)
    return not asked.stdout.strip() and (asked.returncode == 0 or "Invalid job id" in asked.stderr)


def record_path(job: Job) -> Path:
    """Where the number of a training's job is kept until it is collected."""
    return job.beside(".slurm.json")


def read_record(job: Job) -> tuple[str, int]:
    """The number of its job, and the iteration that it started from."""
    record = json.loads(record_path(job).read_text(encoding="utf-8"))
    return record["job_id"], record["from_iteration"]
