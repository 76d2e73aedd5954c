"""The runs below a folder, as far as their small files tell; nothing is built or loaded, torch is not imported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncli.config import Recipe
from aligncli.engine.progress_file import read_progress
from aligncli.engine.run_folder import RunFolder, read_json, reading, training_seconds
from aligncli.engine.watched import run_state
from aligncli.errors import CheckpointError, UserError
from aligncli.plain import parse_json

MAX_DEPTH = 3  # studies keep runs in OUT/runs/NAME


@dataclass(frozen=True)
class RunSummary:
    """One run. `metrics` are percent, empty before its evaluation; `seconds` are NaN where nobody noted them.

    `state` is one of watched.py's: "training", "finished", "stopped", ...
    """

    path: Path
    recipe: Recipe
    iteration: int
    metrics: dict[str, float]
    seconds: float
    modified: float  # seconds since 1970
    state: str

    @property
    def finished(self) -> bool:
        """Whether the last iteration was evaluated."""
        return self.iteration == self.recipe.schedule.iterations and bool(self.metrics)


def find_runs(folder: Path) -> tuple[list[RunSummary], list[str]]:
    """Runs below a folder, the newest first, and a line for each that cannot be read. Raises UserError: no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the one that holds your runs")
    runs, faults = [], []
    for path in run_folders(folder):
        try:
            runs.append(summarize(path))
        except UserError as error:
            faults.append(f"{path}: {error}")
    return sorted(runs, key=lambda run: run.modified, reverse=True), faults


def run_folders(folder: Path, *, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Run folders at most `depth` below a folder, in alphabetical order; none where it is no folder."""
    if (folder / "recipe.json").is_file() and (folder / "categories.json").is_file():
        yield folder
    elif depth > 0 and folder.is_dir():
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from run_folders(inner, depth=depth - 1)


def modified(path: Path) -> float:
    """When a run folder's own files last changed, seconds since 1970."""
    return max(file.stat().st_mtime for file in path.iterdir() if file.is_file())


def summarize(path: Path) -> RunSummary:
    """What a run's files say. Raises CheckpointError, RecipeError where they are missing or broken."""
    run = RunFolder(path)
    recipe = run.read_recipe()
    metrics = {}
    if run.evaluation_path.is_file():
        with reading(run.evaluation_path):
            values = read_json(run.evaluation_path)["metrics"]
            metrics = {name: math.nan if value is None else float(value) for name, value in values.items()}
    progress, last = read_progress(run), _last_record(run.metrics_path)
    return RunSummary(
        path=path,
        recipe=recipe,
        iteration=last.get("iteration", 0),
        metrics=metrics,
        seconds=training_seconds(path) or (progress.seconds if progress else math.nan),
        modified=modified(path),
        state=run_state(run, recipe, progress, last),
    )


def _last_record(path: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl; empty before the first. Raises CheckpointError where no line is whole."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for line in reversed(lines):
        with suppress(ValueError):  # half written
            record = parse_json(line)
            if isinstance(record, dict) and type(record.get("iteration")) is int:
                return record
    if len(lines) > 1:  # the last one may still be being written
        raise CheckpointError(f"{path} holds no record of a training: mend or delete it")
    return {}
