"""The run folder: everything about one training, enough to rebuild, resume, evaluate and compare it.

recipe.json        the resolved recipe
environment.json   versions, hardware, threads
categories.json    class names and their COCO ids, in label order
metrics.jsonl      one line a logged step, and one an evaluation; no times, so equal runs are equal files
model.safetensors  the newest weights; best.safetensors: those of the best evaluation, if there are several
checkpoints/       the newest training states, see checkpoint.py
results.json       detections in COCO's result format; evaluation.json: the metrics
time.json          wall time, where a study ran the training; progress.json: how far it is, for who watches
.lock              held by the process that trains
report.html        what it reached, for people; pictures/: its charts

Importing this module imports no torch: what lists runs is quick.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligncli.config import Recipe, parse_recipe
from aligncli.engine.disk import asking_for_room, write_file
from aligncli.engine.run_environment import describe_environment
from aligncli.errors import CheckpointError, UserError, first_line
from aligncli.plain import only_finite, parse_json

if TYPE_CHECKING:
    from aligncli.data.dataset import Categories


# Without results.json, which an evaluation writes anew
OWN_FILES = (
    *("recipe.json", "environment.json", "categories.json", "metrics.jsonl", "model.safetensors", "best.safetensors"),
    *("evaluation.json", "time.json", "progress.json"),
)


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of a run at `root`."""

    root: Path

    @property
    def recipe_path(self) -> Path:
        return self.root / "recipe.json"

    @property
    def categories_path(self) -> Path:
        return self.root / "categories.json"

    @property
    def metrics_path(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def weights_path(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def best_path(self) -> Path:
        return self.root / "best.safetensors"

    @property
    def checkpoints_path(self) -> Path:
        return self.root / "checkpoints"

    @property
    def results_path(self) -> Path:
        return self.root / "results.json"

    @property
    def evaluation_path(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def progress_path(self) -> Path:
        return self.root / "progress.json"

    @property
    def lock_path(self) -> Path:
        return self.root / ".lock"

    @property
    def time_path(self) -> Path:
        return self.root / "time.json"

    def newest_checkpoint(self) -> int:
        """The iteration that a training would go on from, should that checkpoint be sound; 0 without any."""
        names = (path.name for path in self.checkpoints_path.glob("[0-9]*"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def create(self, recipe: Recipe, categories: Categories, *, device: str) -> None:
        """Write what is known before the first step."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.recipe_path, recipe.model_dump(mode="json"))
        write_json(self.categories_path, categories.to_json())
        write_json(self.root / "environment.json", describe_environment(device))
        self.metrics_path.write_text("", encoding="utf-8")

    def read_recipe(self) -> Recipe:
        """The resolved recipe. Raises CheckpointError where this is no run folder."""
        values = read_json(self.recipe_path)
        with _named(self.recipe_path):
            return parse_recipe(values)

    def read_categories(self) -> Categories:
        """The classes that the model was trained on."""
        from aligncli.data.dataset import Categories

        values = read_json(self.categories_path)
        with _named(self.categories_path):
            return Categories.from_json(values)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl, with null for what JSON has no number for: fp16's gradients may overflow."""
        line = (json.dumps(only_finite(record), allow_nan=False) + "\n").encode()
        with asking_for_room(self.metrics_path, len(line)), self.metrics_path.open("ab") as file:
            file.write(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, without a line that a killed process left half written.

        Raises CheckpointError where the file is missing or any other line cannot be read.
        """
        try:
            lines = read_whole_lines(self.metrics_path)
        except OSError as error:
            raise CheckpointError(f"{self.metrics_path} cannot be read: {first_line(error)}") from error
        return [_parse_record(line, source=f"{self.metrics_path}, line {row}") for row, line in enumerate(lines, 1)]

    def is_evaluated(self, iteration: int) -> bool:
        """Whether metrics.jsonl has an evaluation after this iteration."""
        return any("evaluation" in record and record["iteration"] == iteration for record in self.read_metrics())

    def truncate_metrics(self, iteration: int, *, finished: bool) -> None:
        """Drop the lines after `iteration`, and a finished run's evaluation: a resumed run writes them again."""

        def stays(record: Mapping[str, Any]) -> bool:
            return record["iteration"] < iteration or (
                record["iteration"] == iteration and not (finished and "evaluation" in record)
            )

        kept = [json.dumps(record) + "\n" for record in self.read_metrics() if stays(record)]
        write_text(self.metrics_path, "".join(kept))


def training_seconds(run_dir: Path) -> float:
    """Wall time of a training's processes, start-up and evaluation included; 0 where none is noted legibly."""
    path = RunFolder(run_dir).time_path
    try:
        with reading(path):
            return float(read_json(path)["seconds"])
    except CheckpointError:
        return 0.0


def trained_on(run_dir: Path) -> str:
    """A training's processor (and its instructions) or GPU, and its torch, for people; "" where it does not say."""
    path = RunFolder(run_dir).root / "environment.json"
    try:
        with reading(path):
            found = read_json(path)
            return f"{found['hardware']}, torch {found['packages']['torch']}"
    except CheckpointError:
        return ""


def read_json(path: Path) -> Any:
    """A JSON file of a run. Raises CheckpointError that says which file of which folder is missing or broken."""
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(
            f"{path.parent} holds no {path.name}: expected a run folder made by `aligncli train --out`"
        )
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around the use of what a file of a run should hold: where it does not, that is a CheckpointError."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} does not hold what aligncli writes there ({first_line(error)})") from error


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Around the use of a file's values: what is wrong with them is told with the file's name."""
    try:
        yield
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _parse_record(line: str, *, source: str) -> dict[str, Any]:
    """A line of metrics.jsonl. Raises CheckpointError where it is no record of a training."""
    try:
        record = parse_json(line)
    except ValueError as error:
        raise CheckpointError(f"{source} cannot be read ({first_line(error)}): mend or delete that line") from error
    if not (isinstance(record, dict) and type(record.get("iteration")) is int):
        raise CheckpointError(f"{source} is no record of a training: expected an iteration in it, or delete that line")
    return record


def read_whole_lines(path: Path) -> list[str]:
    """A text file's lines, without the last one where its end is missing: it may still be being written.

    Raises CheckpointError where it is no text.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error
    return lines


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises TrainingError where there is no room."""
    write_file(path, text.encode())
