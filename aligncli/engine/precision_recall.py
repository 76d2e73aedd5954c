"""Precision over recall, by class and IoU: the curves whose areas are the APs of metrics.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligncli.engine.coco_evaluators import evaluate_hotcoco, evaluate_pycocotools
from aligncli.engine.coco_tables import tabulate_detections, tabulate_ground_truth
from aligncli.engine.metrics import WHOLE, Evaluator, choose_evaluator

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # COCO's T thresholds
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's R levels


@dataclass(frozen=True)
class PrecisionRecall:
    """Of K classes: `precision` (T, R, K) float64, 0..1, at IOUS and RECALLS; NaN for a class without objects."""

    names: tuple[str, ...]
    precision: np.ndarray

    def mean_curve(self, iou: float) -> np.ndarray:
        """(R,) precision at one of IOUS, the mean over the classes with objects; NaN where there are none."""
        known = self.precision[IOUS.index(iou)][:, self._has_objects]
        return known.mean(axis=1) if known.shape[1] else np.full(len(RECALLS), np.nan)

    def class_curves(self, iou: float) -> dict[str, np.ndarray]:
        """(R,) precision at one of IOUS, by class; classes without objects are left out."""
        curves = self.precision[IOUS.index(iou)]
        return {name: curves[:, number] for number, name in enumerate(self.names) if self._has_objects[number]}

    def average_precision(self, iou: float | None = None) -> dict[str, float]:
        """AP by class, percent, at one of IOUS or over all of them; NaN for a class without objects."""
        chosen = self.precision if iou is None else self.precision[[IOUS.index(iou)]]
        return dict(zip(self.names, (100.0 * chosen.mean(axis=(0, 1))).tolist()))

    @property
    def _has_objects(self) -> np.ndarray:
        return ~np.isnan(self.precision[0, 0])


def precision_recall(
    ground_truth: Mapping[str, Any], detections: list[dict[str, Any]], *, evaluator: Evaluator = "auto"
) -> PrecisionRecall:
    """Curves over all sizes and at most 100 detections an image and class. Raises DataError, see metrics.py."""
    table = tabulate_ground_truth(ground_truth)
    found = tabulate_detections(detections, table)
    evaluate = evaluate_hotcoco if choose_evaluator(evaluator) == "hotcoco" else evaluate_pycocotools
    precision, _ = evaluate(table, found, [WHOLE], [100])
    defined = np.where(precision > -1, precision, np.nan)[..., 0, 0]
    return PrecisionRecall(table.category_names, defined)
