"""The COCO detection metrics, from COCO-format ground truth and results.

pycocotools is the reference. hotcoco computes the very same numbers (tests/engine/test_metrics.py holds
it to every bit) more than a hundred times faster, and is used wherever it can be imported. Either one is
asked only for its precision and recall arrays; the averages are taken here, once, as pycocotools does.
Values are percent; NaN where there is nothing to find (pycocotools' -1).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aligncli.engine.coco_evaluators import evaluate_hotcoco, evaluate_pycocotools
from aligncli.engine.coco_tables import (
    DetectionTable,
    GroundTruthTable,
    tabulate_detections,
    tabulate_ground_truth,
)
from aligncli.errors import DataError, UserError
from aligncli.plain import parse_json

if TYPE_CHECKING:  # torch takes seconds to import, and scoring a file does not need it
    from torch import Tensor

    from aligncli.data.dataset import Categories, Target

Evaluator = Literal["auto", "hotcoco", "pycocotools"]
METRIC_NAMES = (
    "AP", "AP50", "AP75", "AP90", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
SMALL, LARGE = 32.0**2, 96.0**2  # COCO's; an object of exactly 32^2 counts as small and as medium
WHOLE = (0.0, 1e5**2)  # pycocotools' "all": larger objects are ignored
IOU_50, IOU_75, IOU_90 = 0, 5, 8  # indices into .50, .55, ... .95


@dataclass(frozen=True)
class CocoMetrics:
    """`values` has METRIC_NAMES; `per_class` AP by category name, empty unless asked for; percent."""

    values: dict[str, float]
    per_class: dict[str, float]
    evaluator: str  # who computed it: hotcoco or pycocotools


def compute_metrics(
    ground_truth: dict[str, Any],
    detections: list[dict[str, Any]],
    *,
    evaluator: Evaluator = "auto",
    area_bins: tuple[float, float] = (SMALL, LARGE),
    per_class: bool = False,
    max_detections: int = 100,
) -> CocoMetrics:
    """Score COCO bbox results against COCO ground truth; neither is changed.

    `area_bins` are the two limits, in square pixels of the original image, between small, medium and
    large. At most `max_detections` an image and class count, so AR100 is the recall at that number.
    `auto` is hotcoco, or pycocotools where hotcoco has no build for the platform.
    Raises DataError for ids that the ground truth does not have, malformed boxes or scores.
    """
    table = tabulate_ground_truth(ground_truth)
    found = tabulate_detections(detections, table)
    return _score(table, found, evaluator, area_bins, per_class, max_detections)


def score_files(
    annotations: Path,
    detections: Path,
    *,
    evaluator: Evaluator = "auto",
    area_bins: tuple[float, float] = (SMALL, LARGE),
    per_class: bool = False,
    max_detections: int = 100,
) -> CocoMetrics:
    """`compute_metrics` on two JSON files. Raises DataError, naming the file and the entry."""
    table = tabulate_ground_truth(_read_json(annotations), source=str(annotations))
    found = tabulate_detections(_read_json(detections), table, source=str(detections))
    return _score(table, found, evaluator, area_bins, per_class, max_detections)


def to_coco_results(
    outputs: Sequence[Mapping[str, Tensor]], targets: Sequence[Target], categories: Categories
) -> list[dict[str, Any]]:
    """Detections as COCO results, ready for JSON.

    `outputs`, one an image: boxes (D, 4) xyxy in network input pixels, scores (D,), labels (D,) 0..K-1.
    Boxes become xywh in pixels of the original image, clipped to it; scores are exact, not rounded.
    """
    results = []
    category_ids = np.array(categories.coco_ids)
    for output, target in zip(outputs, targets, strict=True):
        height, width = target["size"]
        boxes = output["boxes"].detach().cpu().double().numpy()
        boxes = boxes.reshape(-1, 2, 2) / np.array(target["scale"])  # (D, corner, xy)
        boxes = boxes.clip(0.0, np.array([width, height], dtype=np.float64))
        sizes = (boxes[:, 1] - boxes[:, 0]).clip(0.0)
        columns = (
            category_ids[output["labels"].cpu().numpy()].tolist(),
            np.concatenate([boxes[:, 0], sizes], axis=1).tolist(),
            output["scores"].detach().cpu().double().tolist(),
        )
        image_id = int(target["image_id"])
        results += [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            for category_id, box, score in zip(*columns)
        ]
    return results


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # malformed JSON, or bytes that are not text
        raise DataError(f"{path}: not a JSON file: {error}") from error


def _score(
    ground_truth: GroundTruthTable,
    detections: DetectionTable,
    evaluator: Evaluator,
    area_bins: tuple[float, float],
    per_class: bool,
    max_detections: int,
) -> CocoMetrics:
    small, large = area_bins
    if not WHOLE[0] < small < large < WHOLE[1]:
        raise UserError(f"area_bins must be two growing areas in square pixels, got {small:g} and {large:g}")
    chosen = choose_evaluator(evaluator)
    evaluate = evaluate_hotcoco if chosen == "hotcoco" else evaluate_pycocotools
    area_ranges = [WHOLE, (WHOLE[0], small), (small, large), (large, WHOLE[1])]
    limits = [min(limit, max_detections) for limit in (1, 10, max_detections)]  # growing: hotcoco does not sort
    precision, recall = evaluate(ground_truth, detections, area_ranges, limits)
    by_class = [_percent(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])] if per_class else []
    return CocoMetrics(
        values=_summarize(precision, recall),
        per_class=dict(zip(ground_truth.category_names, by_class)),
        evaluator=chosen,
    )


def choose_evaluator(evaluator: Evaluator) -> Literal["hotcoco", "pycocotools"]:
    """Who computes: `auto` is hotcoco where it can be imported. Raises UserError where a named one cannot."""
    if evaluator == "pycocotools":
        return "pycocotools"
    try:
        importlib.import_module("hotcoco")
    except ImportError as error:  # there are platforms without a build of it
        if evaluator == "auto":
            return "pycocotools"
        raise UserError(f"evaluator 'hotcoco' cannot be imported ({error}): choose 'pycocotools'") from error
    return "hotcoco"


def _summarize(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """METRIC_NAMES from precision (T, R, K, 4, 3) and recall (T, K, 4, 3).

    T IoU thresholds, R recall levels, K classes; areas all, small, medium, large; limits 1, 10, 100.
    """
    best, recalled = precision[..., -1], recall[..., -1]
    sections = (
        best[..., 0], best[IOU_50, ..., 0], best[IOU_75, ..., 0], best[IOU_90, ..., 0],
        best[..., 1], best[..., 2], best[..., 3],
        recall[..., 0, 0], recall[..., 0, 1], recall[..., 0, 2],
        recalled[..., 1], recalled[..., 2], recalled[..., 3],
    )  # fmt: skip
    return {name: _percent(section) for name, section in zip(METRIC_NAMES, sections, strict=True)}


def _percent(values: np.ndarray) -> float:
    defined = values[values > -1]  # -1 marks a class without ground truth
    return 100.0 * float(np.mean(defined)) if defined.size else float("nan")
