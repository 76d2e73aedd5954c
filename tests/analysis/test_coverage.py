"""How well fixed boxes cover objects: the nearest cell is enough, and nine anchors beat one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from aligncli.analysis.coverage import best_ious, measure_coverage
from aligncli.anchors import AnchorGenerator
from aligncli.build import build_dataset
from aligncli.catalog import load_recipe
from aligncli.errors import RecipeError
from aligncli.ops import implicit_rois

SCALES, RATIOS, STRIDES = (3.0, 4.5), (0.5, 1.0, 2.0), (8, 16)
SHAPES = AnchorGenerator(scales=SCALES, ratios=RATIOS).shapes
side = st.floats(1, 90, allow_subnormal=False)
corner = st.floats(0, 60, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(boxes=st.lists(st.tuples(corner, corner, side, side), min_size=1, max_size=5))
def test_the_best_anchor_of_all_is_found_at_the_nearest_cell(boxes: list[tuple[float, ...]]) -> None:
    found = np.array([(x, y, x + width, y + height) for x, y, width, height in boxes])
    height, width = 64, 96
    generator = AnchorGenerator(scales=SCALES, ratios=RATIOS)
    anchors = torch.cat([generator(height // stride, width // stride, stride) for stride in STRIDES])
    brute = box_iou(torch.from_numpy(found), anchors.double()).amax(dim=1).numpy()
    sizes = np.tile([[height, width]], (len(boxes), 1))
    assert best_ious(found, sizes, SHAPES, STRIDES) == pytest.approx(brute, abs=1e-6)


def test_an_implicit_roi_is_a_square_of_kernel_strides_on_its_cell() -> None:
    roi = implicit_rois(6, 6, 3, 8)[2, 3].double().numpy()
    assert best_ious(roi[None], np.array([[48, 48]]), [(3.0, 3.0)], [8]) == pytest.approx([1.0])


def test_nine_anchors_cover_shapes_better_than_one() -> None:
    recipe = load_recipe("retinanet_small").changed({"data.num_val": 20})
    found = {item.name: item for item in measure_coverage(build_dataset(recipe, "val"), recipe)}
    own, one, nine, implicit = found.values()
    assert (own.num_per_cell, one.num_per_cell, nine.num_per_cell, implicit.num_per_cell) == (9, 1, 9, 1)
    assert own.mean_best_iou == nine.mean_best_iou > one.mean_best_iou
    assert own.recall > one.recall
    assert one.recall == implicit.recall  # at small scale anchors are as wide as implicit RoIs


def test_a_recipe_without_anchors_is_held_against_the_papers_scale() -> None:
    recipe = load_recipe("fcos_small").changed({"data.num_val": 4})
    found = measure_coverage(build_dataset(recipe, "val"), recipe)
    assert found[0].name == "one square anchor, 4 strides"


def test_a_detector_without_levels_is_named() -> None:
    recipe = load_recipe("faster_rcnn_small_c4").changed({"data.num_val": 4})
    with pytest.raises(RecipeError, match="'faster_rcnn_small_c4' has neck 'stage'"):
        measure_coverage(build_dataset(recipe, "val"), recipe)
