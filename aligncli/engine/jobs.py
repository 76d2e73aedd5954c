"""What every launcher does with a training: its command, how far it is, what is kept of it.

A training runs as a user would start it, with `aligncli train`, in a process of its own: it can be stopped,
and started again it goes on from its newest checkpoint.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aligncli.config import CocoConfig
from aligncli.data.coco import require_folders
from aligncli.engine.run_folder import RunFolder, read_whole_lines, training_seconds, write_json
from aligncli.engine.study_plan import Job
from aligncli.engine.weights import extract_features, require_weights
from aligncli.errors import TrainingError, UserError


class LaunchReporter(Protocol):
    """Who is told how far it is."""

    def message(self, text: str) -> None:
        """One line for people."""
        ...

    def stage(self, name: str, *, done: int, total: int, share: float | None) -> None:
        """Iterations of all trainings together, and the `share` of the work that they are, where that is known."""
        ...

    def runs(self, running: Mapping[str, tuple[int, int]], *, ended: int, waiting: int) -> None:
        """The trainings that run, each with its iterations done and in all, and how many do not."""
        ...


class Launcher(Protocol):
    """Where trainings run: this machine (launch.py), or a cluster's (slurm.py)."""

    def run(
        self, name: str, jobs: Sequence[Job], reporter: LaunchReporter, costs: Mapping[Path, float] | None = None
    ) -> None:
        """Run what is not finished yet; `name` is what progress is told under, `costs` as for Progress.

        Raises TrainingError, after the others have ended, where some failed.
        """
        ...


class Progress:
    """The trainings of one `run`: what waits, what has ended, and telling the reporter so.

    Args:
        name: what progress is told under. jobs: all of them, finished ones too.
        costs: of an iteration of each that is not finished, by run folder, in any unit; without them nothing is told
            of the work, of which an iteration of one network may be four times as much as of another.

    Raises UserError where a folder that one would go on in is another training's.
    """

    def __init__(
        self, name: str, jobs: Sequence[Job], reporter: LaunchReporter, costs: Mapping[Path, float] | None = None
    ) -> None:
        self.name = name
        self.reporter = reporter
        self.total = sum(iterations(job) for job in jobs)
        self.waiting = [job for job in jobs if not job.is_finished()]
        self.ended = [job for job in jobs if job not in self.waiting]
        self.faults: list[str] = []
        self.costs = costs or {}
        self.work = sum(self.cost(job, iterations(job)) for job in jobs)
        for job in self.waiting:
            if RunFolder(job.run_dir).newest_checkpoint() and not job.holds_recipe():
                raise UserError(f"{job.run_dir} holds another training than {job.recipe.name!r}: move it away")

    def end(self, job: Job, *, seconds: float, fault: str) -> None:
        """A training has ended, with what `describe_failure` says where it failed."""
        self.ended.append(job)
        line = f"{job.run_dir.name} failed {fault}" if fault else conclude(job, seconds=seconds)
        self.faults += [line] if fault else []
        self.reporter.message(line)

    def take_ready(self, count: int) -> list[Job]:
        """At most `count` of the trainings that wait for nothing but a place, no longer among those that wait."""
        ready = [job for job in self.waiting if job.is_ready][:count]
        self.waiting = [job for job in self.waiting if job not in ready]
        return ready

    def give_up(self) -> None:
        """End what waits, once nothing runs that it could start from."""
        for job in self.waiting:
            self.faults.append(f"{job.run_dir.name} was not started: there is no {job.starts_from}")
        self.waiting = []

    def cost(self, job: Job, steps: int) -> float:
        """Of that many iterations; a training that was finished before is no work."""
        return self.costs.get(job.run_dir, 0.0) * steps

    def tell(self, running: Sequence[Job], *, queued: int = 0) -> None:
        """What runs, what is left, `queued` in a cluster's hands included, and the iterations of all together."""
        done = [(job, progress(job)) for job in running]
        counts = {job.run_dir.name: (steps, iterations(job)) for job, steps in done}
        self.reporter.runs(counts, ended=len(self.ended), waiting=len(self.waiting) + queued)
        done += [(job, iterations(job)) for job in self.ended]
        share = sum(self.cost(*each) for each in done) / self.work if self.work else None
        self.reporter.stage(self.name, done=sum(steps for _, steps in done), total=self.total, share=share)

    def raise_faults(self) -> None:
        """Raises TrainingError that names every training that failed."""
        if self.faults:
            raise TrainingError("; ".join(self.faults))


def require_inputs(jobs: Sequence[Job], *, download: bool) -> None:
    """Look for the data and weights that unfinished trainings read on this machine, before any of them starts.

    Raises DataError or CheckpointError at the first that is not there.
    """
    for job in jobs:
        if job.is_finished():
            continue
        if isinstance(job.recipe.data, CocoConfig):
            require_folders(job.recipe.data)
        if job.starts_from is None and not RunFolder(job.run_dir).newest_checkpoint():
            require_weights(job.recipe, download=download)


def training_command(job: Job, *, device: str, threads: int, download: bool) -> list[str]:
    """The command that trains `job`, from its newest checkpoint where it has one; a study's table is its report.

    Args:
        threads: CPU threads; 0 leaves torch's default. download: allow ImageNet weights to be fetched.
    """
    command = [sys.executable, "-P", "-m", "aligncli", "train", "--no-report", "--device", device]
    job.run_dir.parent.mkdir(parents=True, exist_ok=True)
    if RunFolder(job.run_dir).newest_checkpoint():
        command += ["--resume"]
    else:
        shutil.rmtree(job.run_dir, ignore_errors=True)  # stopped before its first checkpoint
        recipe = job.beside(".json")
        write_json(recipe, job.recipe.model_dump(mode="json"))
        command += [str(recipe)]
    command += ["--out", str(job.run_dir)]
    command += ["--threads", str(threads)] if threads else []
    return command + (["--download"] if download else [])


def conclude(job: Job, *, seconds: float) -> str:
    """Keep what a training was run for and the time it took; returns one line about it."""
    add_seconds(job, seconds)
    if job.features is not None:
        extract_features(job.run_dir, job.features)
    average_precision = json.loads(last_line(job))["evaluation"]["AP"]
    reached = "AP undefined" if average_precision is None else f"AP {average_precision:.1f}"
    return f"{job.run_dir.name}: {reached} after {training_seconds(job.run_dir) / 60:.1f} min"


def log_path(job: Job) -> Path:
    """Where a training's output goes."""
    return job.beside(".log")


def describe_failure(exit_code: int, log: Path) -> str:
    """The exit code, and the last line that was written."""
    return f"(exit code {exit_code}, log {log}): {last_output(log) or 'no output'}"


def last_output(log: Path) -> str:
    """The last line that a process wrote; empty where it wrote none."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else ""


def add_seconds(job: Job, seconds: float) -> None:
    """Add to the wall time that a training has taken, over all its starts."""
    if job.run_dir.is_dir():
        write_json(RunFolder(job.run_dir).time_path, {"seconds": round(training_seconds(job.run_dir) + seconds, 1)})


def iterations(job: Job) -> int:
    """Optimizer steps of a whole training."""
    return job.recipe.schedule.iterations


def progress(job: Job) -> int:
    """Steps that a running training has logged."""
    line = last_line(job)
    return int(json.loads(line)["iteration"]) if line else 0


def last_line(job: Job) -> str:
    """The newest whole line of metrics.jsonl; empty before the first."""
    path = RunFolder(job.run_dir).metrics_path
    if not path.is_file():
        return ""
    lines = read_whole_lines(path)
    return lines[-1] if lines else ""
