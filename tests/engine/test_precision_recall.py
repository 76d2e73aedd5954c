"""Curves whose areas are the metrics."""

from __future__ import annotations

import numpy as np
import pytest

from aligncli.build import build_dataset
from aligncli.catalog import load_recipe
from aligncli.engine.metrics import compute_metrics
from aligncli.engine.precision_recall import IOUS, precision_recall

TRUTH = build_dataset(load_recipe("aligndet_small").changed({"data.num_val": 30}), "val").ground_truth()


def shifted_detections() -> list[dict]:
    """Boxes of the ground truth, each a little further aside than the one before."""
    found = []
    for number, record in enumerate(TRUTH["annotations"]):
        x, y, width, height = record["bbox"]
        box = [x + 0.01 * (number % 50) * width, y, width, height]
        found.append(
            {**{key: record[key] for key in ("image_id", "category_id")}, "bbox": box, "score": 1 / (number + 2)}
        )
    return found


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_the_areas_under_the_curves_are_the_metrics(evaluator: str) -> None:
    if evaluator == "hotcoco":
        pytest.importorskip("hotcoco")
    found = precision_recall(TRUTH, shifted_detections(), evaluator=evaluator)  # type: ignore[arg-type]
    metrics = compute_metrics(TRUTH, shifted_detections(), per_class=True)
    assert found.average_precision() == pytest.approx(metrics.per_class, nan_ok=True)
    for name, iou in (("AP50", 0.5), ("AP75", 0.75), ("AP90", 0.9)):
        assert 100 * found.mean_curve(iou).mean() == pytest.approx(metrics.values[name])
        assert np.nanmean(list(found.average_precision(iou).values())) == pytest.approx(metrics.values[name])
    assert found.precision.shape[0] == len(IOUS)


def test_a_class_without_objects_has_no_curve() -> None:
    truth = {**TRUTH, "categories": [*TRUTH["categories"], {"id": 999, "name": "unicorn"}]}
    found = precision_recall(truth, shifted_detections())
    assert "unicorn" not in found.class_curves(0.5)
    assert np.isnan(found.average_precision()["unicorn"])
    assert not np.isnan(found.mean_curve(0.5)).any()
    nothing = precision_recall({**truth, "annotations": []}, [])
    assert np.isnan(nothing.mean_curve(0.5)).all()
