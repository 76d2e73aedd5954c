"""What run folders hold, read once, and what of it a page can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aligncli.analysis.alignment.examples import Example
from aligncli.analysis.alignment.measure import Measurement
from aligncli.analysis.alignment.sources import load_sources, measure_detector
from aligncli.build import NO_PARTS, Parts, build_dataset
from aligncli.data.dataset import DetectionDataset
from aligncli.engine.detections import Errors, errors_of, results
from aligncli.engine.image_scores import ImageScores, score_images
from aligncli.engine.precision_recall import PrecisionRecall, precision_recall
from aligncli.engine.run_folder import RunFolder, read_json, reading
from aligncli.engine.run_list import RunSummary, summarize
from aligncli.errors import UserError

STAGES = 4  # of one run: files, curves and images, errors, alignment
Progress = Callable[[int], None]  # is told how many stages of a run are done


@dataclass(frozen=True)
class Evaluated:
    """A run's detections beside the ground truth. Where `errors` are empty, `no_errors` says why."""

    dataset: DetectionDataset
    truth: dict[str, Any]
    detections: list[dict[str, Any]]
    curves: PrecisionRecall
    images: ImageScores
    errors: tuple[Errors, ...]
    no_errors: str


@dataclass(frozen=True)
class Aligned:
    """Figure 4 of a run, and found objects to draw."""

    measurement: Measurement
    examples: Sequence[Example]


@dataclass(frozen=True)
class RunFacts:
    """One run. `evaluated` and `aligned` are a sentence that says why, where there is nothing to show."""

    name: str  # differs from the names of the runs beside it
    summary: RunSummary
    environment: Mapping[str, str]  # machine and versions
    records: list[dict[str, Any]]
    evaluated: Evaluated | str
    aligned: Aligned | str


def read_runs(
    run_dirs: Sequence[Path],
    *,
    num_alignment_images: int,
    device: str = "cpu",
    parts: Parts = NO_PARTS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[RunFacts]:
    """Read run folders, finished or not. Alignment is measured on the first images of the validation split.

    `progress` is told stages done and in all. Raises CheckpointError, RecipeError for what is no run folder.
    """
    names = distinct_names(run_dirs)
    summaries = [summarize(run_dir) for run_dir in run_dirs]  # a folder that is no run ends it before any work
    facts = []
    for number, (name, summary) in enumerate(zip(names, summaries, strict=True)):

        def tell(stage: int, before: int = number * STAGES) -> None:
            progress(before + stage, len(run_dirs) * STAGES)

        facts.append(
            _read_run(
                name, summary, num_alignment_images=num_alignment_images, device=device, parts=parts, progress=tell
            )
        )
    return facts


def distinct_names(run_dirs: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths where two are the same."""
    names = [run_dir.resolve().name for run_dir in run_dirs]
    count = Counter(names)
    return [name if count[name] == 1 else str(path) for name, path in zip(names, run_dirs, strict=True)]


def _read_run(
    name: str, summary: RunSummary, *, num_alignment_images: int, device: str, parts: Parts, progress: Progress
) -> RunFacts:
    run = RunFolder(summary.path)
    environment, records = _environment(run.root / "environment.json"), run.read_metrics()
    progress(1)
    evaluated: Evaluated | str = "The run has not been evaluated yet."
    if summary.metrics:
        try:
            evaluated = _evaluated(run, summary, progress)
        except UserError as error:  # data that has moved: the metrics are still there to show
            evaluated = f"Not shown: {error}"
    try:
        aligned: Aligned | str = _aligned(name, run, num_images=num_alignment_images, device=device, parts=parts)
    except torch.OutOfMemoryError:
        aligned = f"Not measured: out of memory on {device}"
    except UserError as error:  # a detector without implicit RoIs, weights or data that are gone
        aligned = f"Not measured: {error}"
    progress(STAGES)
    return RunFacts(name, summary, environment, records, evaluated, aligned)


def _environment(path: Path) -> dict[str, str]:
    with reading(path):
        found = read_json(path)
        machine = {name: found.get(name, "-") for name in ("device", "threads", "platform", "python")}
        return {name: str(value) for name, value in {**machine, **found["packages"]}.items()}


def _evaluated(run: RunFolder, summary: RunSummary, progress: Progress) -> Evaluated:
    dataset = build_dataset(summary.recipe, "val")
    truth = dataset.ground_truth()
    detections = results(run.root, truth)
    evaluation = summary.recipe.evaluation
    curves = precision_recall(truth, detections, evaluator=evaluation.evaluator)
    images = score_images(truth, detections)
    progress(2)
    errors, no_errors = (), ""
    try:
        errors = tuple(errors_of(truth, detections, area_bins=evaluation.area_bins))
    except UserError as error:  # a platform without hotcoco
        no_errors = f"Not computed: {error}"
    progress(3)
    return Evaluated(dataset, truth, detections, curves, images, errors, no_errors)


def _aligned(name: str, run: RunFolder, *, num_images: int, device: str, parts: Parts) -> Aligned:
    ((_, detector),) = load_sources([str(run.root)], parts=parts, device=device)
    return Aligned(*measure_detector(name, detector, num_images=num_images, device=device))
