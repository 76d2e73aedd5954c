"""The two COCO evaluators on equal input: pycocotools, the reference, and hotcoco, its fast twin.

Both take tables and return (precision (T, R, K, A, M), recall (T, K, A, M)), float64, -1 where a class
has no ground truth: T IoU thresholds .50 to .95, R 101 recall levels, K classes, A area ranges, M limits
on detections an image and class. tests/engine/test_metrics.py holds them to the same bits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from aligncli.engine.coco_tables import DetectionTable, GroundTruthTable


def evaluate_hotcoco(
    ground_truth: GroundTruthTable,
    detections: DetectionTable,
    area_ranges: Sequence[tuple[float, float]],
    limits: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    from hotcoco import COCO, COCOeval

    truth = COCO.from_arrays(
        [{"id": rank} for rank in range(len(ground_truth.image_ranks))],
        [{"id": rank, "name": str(rank)} for rank in range(len(ground_truth.category_ranks))],
        ground_truth.images,
        ground_truth.categories,
        ground_truth.boxes,
        area=ground_truth.areas,
        iscrowd=ground_truth.crowd,
    )
    columns = (detections.images, detections.boxes, detections.scores, detections.categories)
    evaluation = COCOeval(truth, truth.load_res(np.column_stack(columns)), "bbox")
    evaluation.params.area_rng = [list(area_range) for area_range in area_ranges]
    evaluation.params.max_dets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    return evaluation.eval["precision"], evaluation.eval["recall"]


def evaluate_pycocotools(
    ground_truth: GroundTruthTable,
    detections: DetectionTable,
    area_ranges: Sequence[tuple[float, float]],
    limits: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    from pycocotools.cocoeval import COCOeval

    crowd, scores = ground_truth.crowd.tolist(), detections.scores.tolist()
    truth = _annotations(ground_truth, ground_truth.areas, [{"iscrowd": int(c)} for c in crowd])
    areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    found = _annotations(detections, areas, [{"score": score} for score in scores])
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress, and has no switch for that
        evaluation = COCOeval(_index(truth, ground_truth), _index(found, ground_truth), "bbox")
        evaluation.params.areaRng = [list(area_range) for area_range in area_ranges]
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _annotations(
    table: GroundTruthTable | DetectionTable, areas: np.ndarray, extras: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    columns = (table.images.tolist(), table.categories.tolist(), table.boxes.tolist(), areas.tolist(), extras)
    return [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, **extra}
        # From 1: pycocotools marks a match with the partner's id, and reads 0 as no match.
        for number, (image, category, box, area, extra) in enumerate(zip(*columns), start=1)
    ]


def _index(annotations: list[dict[str, Any]], ground_truth: GroundTruthTable) -> Any:
    from pycocotools.coco import COCO

    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": rank} for rank in range(len(ground_truth.image_ranks))],
        "categories": [{"id": rank} for rank in range(len(ground_truth.category_ranks))],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
