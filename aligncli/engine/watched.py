"""What a run folder tells of its training from outside, while it goes on and afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncli.config import Recipe
from aligncli.engine.progress_file import Progress, is_alive, read_progress
from aligncli.engine.run_folder import RunFolder

RUNNING = ("training", "evaluating")


@dataclass(frozen=True)
class Watched:
    """One look at a run.

    Args:
        state: "training", "evaluating"; "finished"; "stopped" on request, "failed" (progress.reason says why), "killed"
            or hanging, and "unfinished" where no process ever said more.
        progress: the training's last words, None of a run that is older than them.
        records: the whole lines of metrics.jsonl.
    """

    recipe: Recipe
    state: str
    progress: Progress | None
    records: list[dict[str, Any]]

    @property
    def is_running(self) -> bool:
        return self.state in RUNNING

    @property
    def iteration(self) -> int:
        """Optimizer steps so far, as far as is known."""
        logged = self.records[-1]["iteration"] if self.records else 0
        return max(logged, self.progress.iteration if self.progress else 0)

    @property
    def average_precision(self) -> tuple[int, float] | None:
        """Iteration and AP (percent) of the last evaluation that has one."""
        evaluations = (record for record in reversed(self.records) if "evaluation" in record)
        found = ((record["iteration"], record["evaluation"]["AP"]) for record in evaluations)
        return next(((iteration, value) for iteration, value in found if value is not None), None)


def look(run_dir: Path) -> Watched:
    """Raises CheckpointError, RecipeError for what is no run folder, or a broken one."""
    run = RunFolder(run_dir)
    recipe, progress = run.read_recipe(), read_progress(run)
    records = run.read_metrics()
    state = run_state(run, recipe, progress, records[-1] if records else {})
    return Watched(recipe, state, progress, records)


def follow(run_dir: Path, *, every: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[Watched]:
    """Look again every few seconds until the training has ended; the last look is at its end."""
    while True:
        seen = look(run_dir)
        yield seen
        if not seen.is_running:
            return
        sleep(every)


def run_state(run: RunFolder, recipe: Recipe, progress: Progress | None, last: Mapping[str, Any]) -> str:
    """One of `Watched.state`. `last`, the last record of metrics.jsonl, counts for more than last words."""
    if progress is not None and is_alive(run, progress):
        return progress.stage
    if "evaluation" in last and last["iteration"] == recipe.schedule.iterations:
        return "finished"
    if progress is None:
        return "unfinished"
    return progress.stage if progress.has_ended else "killed"
