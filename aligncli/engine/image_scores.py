"""How well a detector did on each image: objects found and false detections, at IoU .5 and class by class.

Detections count from the score at which their F1 over all images, 2 found / (objects + detections), is highest.
Objects are taken greedily, the best detection first; what lies on a crowd region of its class counts nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligncli.engine.coco_tables import (
    DetectionTable,
    GroundTruthTable,
    tabulate_detections,
    tabulate_ground_truth,
)

FOUND_IOU = 0.5
FOUND, FALSE, ON_CROWD = 1, 0, -1


@dataclass(frozen=True)
class ImageScore:
    """One image: `index` is its place in the data set. `num_false` detections found no object of their class."""

    index: int
    image_id: int
    num_objects: int
    num_found: int
    num_false: int

    @property
    def f1(self) -> float:
        """0..1; 1 where there is nothing to find and nothing was detected."""
        total = self.num_objects + self.num_found + self.num_false
        return 2 * self.num_found / total if total else 1.0


@dataclass(frozen=True)
class ImageScores:
    """All images in the order of the data set; `f1` is that of all together at `threshold`, the best one."""

    threshold: float
    f1: float
    images: tuple[ImageScore, ...]


def score_images(ground_truth: Mapping[str, Any], detections: list[dict[str, Any]]) -> ImageScores:
    """Score every image of a COCO document. Raises DataError for ids that it does not have and malformed boxes."""
    truth = tabulate_ground_truth(ground_truth)
    found = tabulate_detections(detections, truth)
    verdicts = _match(truth, found)
    threshold, f1 = _best_threshold(found.scores, verdicts, num_objects=int((~truth.crowd).sum()))
    kept = found.scores >= threshold

    def count(images: np.ndarray) -> np.ndarray:
        return np.bincount(images, minlength=len(truth.image_ranks))

    objects = count(truth.images[~truth.crowd])
    hits, false = (count(found.images[kept & (verdicts == verdict)]) for verdict in (FOUND, FALSE))
    scores = []
    for index, record in enumerate(ground_truth["images"]):
        rank = truth.image_ranks[record["id"]]
        scores.append(ImageScore(index, record["id"], int(objects[rank]), int(hits[rank]), int(false[rank])))
    return ImageScores(threshold, f1, tuple(scores))


def _match(truth: GroundTruthTable, found: DetectionTable) -> np.ndarray:
    """(D,) int8: FOUND, FALSE or ON_CROWD."""
    verdicts = np.full(len(found.scores), FALSE, np.int8)
    by_score = np.lexsort((-found.scores, found.images))  # image after image, the best first
    starts = np.searchsorted(found.images[by_score], np.arange(len(truth.image_ranks) + 1))
    owners = np.argsort(truth.images, kind="stable")
    own_starts = np.searchsorted(truth.images[owners], np.arange(len(truth.image_ranks) + 1))
    for image in range(len(truth.image_ranks)):
        rows = by_score[starts[image] : starts[image + 1]]
        objects = owners[own_starts[image] : own_starts[image + 1]]
        if len(rows) and len(objects):
            verdicts[rows] = _match_image(truth, objects, found, rows)
    return verdicts


def _match_image(truth: GroundTruthTable, objects: np.ndarray, found: DetectionTable, rows: np.ndarray) -> list[int]:
    same_class = found.categories[rows, None] == truth.categories[objects]
    shared, union = _overlaps(found.boxes[rows], truth.boxes[objects])
    crowd = truth.crowd[objects]
    areas = found.boxes[rows, 2:].prod(axis=1)[:, None]
    on_crowd = (same_class & crowd & (shared >= FOUND_IOU * areas)).any(axis=1)
    iou = np.where(same_class & ~crowd, shared / np.maximum(union, 1e-9), 0.0)  # (d, g)
    verdicts = []
    for row, overlap in enumerate(iou):
        best = int(overlap.argmax())
        if overlap[best] >= FOUND_IOU:
            iou[:, best] = 0.0  # taken
            verdicts.append(FOUND)
        else:
            verdicts.append(ON_CROWD if on_crowd[row] else FALSE)
    return verdicts


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas (d, g) of intersection and union of xywh boxes (d, 4) and (g, 4)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[:, :2] + others[:, 2:])
    shared = (high - low).clip(min=0.0).prod(axis=-1)
    return shared, boxes[:, None, 2:].prod(axis=-1) + others[:, 2:].prod(axis=-1) - shared


def _best_threshold(scores: np.ndarray, verdicts: np.ndarray, *, num_objects: int) -> tuple[float, float]:
    """The score from which detections count, and their F1; 0, and a score that none has, where nothing is found."""
    counted = verdicts != ON_CROWD
    order = np.argsort(-scores[counted], kind="stable")
    ordered, hits = scores[counted][order], np.cumsum(verdicts[counted][order] == FOUND)
    if not len(hits) or hits[-1] == 0:
        return math.nextafter(max([1.0, *scores.tolist()]), math.inf), 0.0
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + num_objects)
    f1[:-1][ordered[1:] == ordered[:-1]] = 0.0  # equal scores count together
    best = int(f1.argmax())
    return float(ordered[best]), float(f1[best])
