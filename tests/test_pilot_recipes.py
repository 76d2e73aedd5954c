"""The rows of Tables 1 and 2 differ in what the tables say, and in nothing else."""

from __future__ import annotations

import pytest

from aligncli.catalog import load_recipe
from aligncli.config import Recipe
from aligncli.config.describe import describe_model


def differences(one: str, other: str) -> set[str]:
    """Keys under `model` in which two recipes differ, after checking that they differ in nothing else but words."""
    first, second = load_recipe(one), load_recipe(other)
    left_out = {"name", "summary", "paper", "model"}
    assert first.model_dump(exclude=left_out) == second.model_dump(exclude=left_out)
    return _differing(first.model.model_dump(), second.model.model_dump())


def _differing(first: dict, second: dict, prefix: str = "") -> set[str]:
    found = set()
    for key in first.keys() | second.keys():
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("kind") == theirs.get("kind"):
            found |= _differing(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            found.add(prefix + key)
    return found


@pytest.mark.parametrize(
    ("one", "other", "keys"),
    [
        ("retinanet_small_fpn", "retinanet_small_p2", {"neck", "head.anchors.scales"}),
        ("retinanet_small_p2", "retinanet_small_p2_roiconv", {"head.roi_conv"}),
        ("retinanet_small_p2_roiconv", "retinanet_small_p2_roiconv_after", {"head.roi_conv"}),
        ("retinanet_r50_p4", "retinanet_r50_p4_roiconv", {"head.roi_conv"}),
        ("retinanet_r50_p4_roiconv", "retinanet_r50_p4_roiconv_after", {"head.roi_conv"}),
        (
            "faster_rcnn_small_fpn",
            "faster_rcnn_small_p2",
            {"neck", "rpn.anchors.scales", "rpn.train_candidates", "rpn.test_candidates"},
        ),
        ("faster_rcnn_small_p2", "faster_rcnn_small_c4", {"neck", "rpn.anchors.scales", "roi_head"}),
        (
            "faster_rcnn_r50_fpn",
            "faster_rcnn_r50_c4",
            {"neck", "rpn.anchors.scales", "rpn.train_candidates", "rpn.test_candidates", "roi_head"},
        ),
    ],
)
def test_two_rows_differ_in(one: str, other: str, keys: set[str]) -> None:
    assert differences(one, other) == keys


def test_the_stages_share_all_but_the_model() -> None:
    assert "kind" in differences("retinanet_small_fpn", "faster_rcnn_small_fpn")


def anchor_sides(recipe: Recipe, anchors: str) -> list[float]:
    model = recipe.model.model_dump()
    part, levels = model[anchors]["anchors"], model["neck"].get("levels", [model["neck"].get("level")])
    return [scale * 2**level for level in levels for scale in part["scales"]]


@pytest.mark.parametrize(
    ("name", "anchors"),
    [
        ("retinanet_small_fpn", "head"),
        ("retinanet_small_p2", "head"),
        ("faster_rcnn_small_fpn", "rpn"),
        ("faster_rcnn_small_p2", "rpn"),
        ("faster_rcnn_small_c4", "rpn"),
    ],
)
def test_every_small_pilot_has_anchors_of_24_48_and_96_pixels(name: str, anchors: str) -> None:
    assert anchor_sides(load_recipe(name), anchors) == [24, 48, 96]


def test_largest_anchor_over_implicit_roi_is_of_the_paper_s_size() -> None:
    paper = max(anchor_sides(load_recipe("retinanet_r50_p4"), "head")) / (3 * 16)
    small = max(anchor_sides(load_recipe("retinanet_small_p2"), "head")) / (3 * 4)
    assert paper == pytest.approx(10.7, abs=0.1)
    assert small == 8.0


def test_the_pilots_in_one_line() -> None:
    described = {
        name: describe_model(load_recipe(name).model) for name in ("faster_rcnn_r50_fpn", "faster_rcnn_r50_c4")
    }
    assert described == {
        "faster_rcnn_r50_fpn": "Faster R-CNN, resnet50, P2-P6 x 256, RoIAlign 7x7 + two FC 1024",
        "faster_rcnn_r50_c4": "Faster R-CNN, resnet50, C4, RoIAlign 14x14 + the stages behind",
    }
    roi_conv = describe_model(load_recipe("retinanet_r50_p4_roiconv").model)
    assert roi_conv == "RetinaNet, resnet50, P4 alone x 256, 5 anchors a cell, 3x3 RoIConv before the tower"
