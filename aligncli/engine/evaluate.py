"""COCO evaluation of a detector on a data set or folder, and of a run folder.

Several processes share the batches that one would see, and rank 0 scores all detections: the same numbers.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aligncli.build import NO_PARTS, Parts, build_dataset
from aligncli.catalog import data_in, on_folder
from aligncli.data.coco import CocoDataset
from aligncli.data.dataset import DetectionDataset, Split
from aligncli.data.loader import require_new_images
from aligncli.engine.distributed import ALONE, World
from aligncli.engine.inference import LoadedDetector, detect_dataset, load_run
from aligncli.engine.metrics import Evaluator, compute_metrics, to_coco_results
from aligncli.engine.reporter import Reporter, SilentReporter
from aligncli.engine.run_folder import RunFolder, write_json
from aligncli.plain import only_finite

Share = tuple[list[int], list[dict[str, Any]]]  # of one batch: the images' ids, and what was detected on them


@dataclass(frozen=True)
class Evaluation:
    """Metrics in percent (NaN where undefined), AP per class where asked for, and how they were made."""

    metrics: dict[str, float]
    per_class: dict[str, float]
    num_images: int
    seconds: float  # detection and scoring
    evaluator: str
    detections: list[dict[str, Any]] = field(repr=False)  # COCO's result format, pixels of the original images

    def to_json(self) -> dict[str, Any]:
        """Plain data without the detections; NaN becomes None."""
        return {
            "metrics": only_finite(self.metrics),
            "per_class": only_finite(self.per_class),
            "num_images": self.num_images,
            "num_detections": len(self.detections),
            "seconds": round(self.seconds, 2),
            "evaluator": self.evaluator,
        }


def evaluate_run(
    run_dir: Path,
    *,
    data: Path | None = None,
    split: Split = "val",
    device: str = "cpu",
    evaluator: Evaluator | None = None,
    per_class: bool = False,
    parts: Parts = NO_PARTS,
    amp: str | None = None,
    compiled: bool = False,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Evaluate a run's newest weights on its own data, or on `data` (a COCO folder with the same classes).

    The run's own validation split in the recipe's precision rewrites its results.json and evaluation.json; anything
    else leaves the run folder as it is. amp, compiled: see `LoadedDetector.tuned`. Raises CheckpointError, DataError,
    DeviceError, and RecipeError where one of its own `parts` is missing.
    """
    loaded = load_run(run_dir, device=device, parts=parts).tuned(amp=amp, compiled=compiled)
    recipe = loaded.recipe if data is None else on_folder(loaded.recipe, data)
    dataset = build_dataset(recipe, split)
    evaluation = evaluate_detector(
        loaded.on(dataset.categories, source=str(data or f"data of {run_dir}")),
        dataset,
        device=device,
        evaluator=evaluator,
        per_class=per_class,
        reporter=reporter or SilentReporter(),
    )
    if data is None and split == "val" and loaded.amp == loaded.recipe.schedule.amp:
        write_evaluation(RunFolder(run_dir), evaluation)
    return evaluation


def evaluate_on_folder(
    detector: LoadedDetector,
    data: Path,
    *,
    split: Split = "val",
    device: str = "cpu",
    evaluator: Evaluator | None = None,
    per_class: bool = False,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Evaluate any detector on a COCO folder. Raises DataError, also where its classes are not the detector's."""
    reporter = reporter or SilentReporter()
    dataset = CocoDataset(data_in(data), split)
    fitting = detector.on(dataset.categories, source=str(data))
    for note in detector.notes:
        reporter.message(note)
    return evaluate_detector(
        fitting, dataset, device=device, evaluator=evaluator, per_class=per_class, reporter=reporter
    )


def evaluate_detector(
    detector: LoadedDetector,
    dataset: DetectionDataset,
    *,
    device: str,
    evaluator: Evaluator | None = None,
    per_class: bool = False,
    reporter: Reporter,
    world: World = ALONE,
) -> Evaluation:
    """Detect on every image of `dataset` and score with the detector's evaluator and area bins.

    In a world of several every rank gets the result, and rank 0 alone its detections.
    """
    started = time.monotonic()
    world.share_buffers(detector.model)
    with world.together():
        own = _detect_share(detector, dataset, device=device, reporter=reporter, world=world)
    shares = world.gather(own)
    scored, detections = None, []
    with world.together():
        if world.is_main:
            detections = merge_shares(shares)
            scored = compute_metrics(
                dataset.ground_truth(),
                detections,
                evaluator=evaluator or detector.evaluation.evaluator,
                area_bins=detector.evaluation.area_bins,
                per_class=per_class,
            )
    scored = world.broadcast(scored)
    assert scored is not None
    return Evaluation(
        metrics=scored.values,
        per_class=scored.per_class,
        num_images=len(dataset),
        seconds=time.monotonic() - started,
        evaluator=scored.evaluator,
        detections=detections,
    )


def _detect_share(
    detector: LoadedDetector, dataset: DetectionDataset, *, device: str, reporter: Reporter, world: World
) -> list[Share]:
    batches = detect_dataset(detector, dataset, device=device, reporter=reporter, rank=world.rank, num_ranks=world.size)
    return [
        ([target["image_id"] for target in targets], to_coco_results(outputs, targets, dataset.categories))
        for outputs, targets in batches
    ]


def merge_shares(shares: Sequence[Sequence[Share]]) -> list[dict[str, Any]]:
    """The detections of all ranks in the order of images. Raises DataError where an image came up twice."""
    turns = zip_longest(*shares)  # batch b is number b // size of rank b % size
    batches = [batch for turn in turns for batch in turn if batch is not None]
    seen: set[int] = set()
    for image_ids, _ in batches:
        require_new_images(image_ids, seen)
    return [detection for _, detections in batches for detection in detections]


def write_evaluation(run: RunFolder, evaluation: Evaluation) -> None:
    """Write results.json and evaluation.json of a run."""
    write_json(run.results_path, evaluation.detections, indent=None)
    write_json(run.evaluation_path, evaluation.to_json())
