"""The paper's models, built from their recipes: sizes that can be derived by hand, and what trains."""

import pytest
import torch
import torchvision
from torch import nn

from aligncli.build import build_model
from aligncli.catalog import load_recipe
from aligncli.errors import RecipeError

K = 80  # COCO's classes


def build(name, changes=None):
    with torch.device("meta"):
        return build_model(load_recipe(name).changed(changes or {}), num_classes=K)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def conv(inputs, outputs, kernel_size):
    return inputs * outputs * kernel_size**2 + outputs


# Section 5.1 and Table 6, by hand: 4 + 4 convolutions and two predictors with one anchor a cell
DPM = 8 * conv(256, 256, 3) + conv(256, K, 3) + conv(256, 4, 3)
FPN = conv(512, 256, 1) + conv(1024, 256, 1) + conv(2048, 256, 1) + 3 * conv(256, 256, 3)
FPN += conv(2048, 256, 3) + conv(256, 256, 3)
PREDICTORS = conv(1024, K, 1) + conv(1024, 4, 1)


@pytest.mark.parametrize(
    ("recipe", "adm"),
    [
        ("aligndet_r50", conv(256, 1024, 7) + conv(1024, 1024, 1) + PREDICTORS),
        (
            "aligndet_r50_dagger",
            conv(256, 1024, 7) + conv(256, 1024, 3) + 2 * conv(1024, 1024, 1) + PREDICTORS,
        ),
        ("aligndet_r50_head4", conv(256, 256, 3) + 4 * conv(256, 256, 3) + conv(256, K, 1) + conv(256, 4, 1)),
    ],
)
def test_aligndet_has_the_parameters_that_the_paper_s_text_gives(recipe, adm):
    model = build(recipe)
    assert count(model.neck) == FPN
    assert count(model.dpm) == DPM
    assert count(model.adm) == adm


def test_retinanet_with_nine_anchors_has_torchvision_s_head_and_pyramid():
    from torchvision.models.detection import retinanet_resnet50_fpn

    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=K)
    ours = build("retinanet_r50")
    assert count(ours.head) == count(theirs.head)
    # torchvision's first version takes P6 from P5; the paper's framework takes it from C5
    assert count(ours.neck) - conv(2048, 256, 3) == count(theirs.backbone.fpn) - conv(256, 256, 3)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("aligndet_r50", "resnet50"),
        ("aligndet_r101", "resnet101"),
        ("aligndet_x101", "resnext101_32x8d"),
        ("aligndet_r50", "resnet18"),
    ],
)
def test_backbones_are_torchvision_s_classifiers_without_the_last_layer(recipe, name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    convolutions = [module for module in theirs.modules() if isinstance(module, nn.Conv2d)]
    # Frozen batch norms are buffers, so only convolutions are left to count
    ours = build(recipe, {"model.backbone.name": name}).backbone
    assert count(ours) == sum(count(module) for module in convolutions)


def test_frozen_up_to_conv2_as_in_section_5_1():
    model = build("aligndet_r50")
    frozen = {name.rsplit(".", 1)[0] for name, x in model.named_parameters() if not x.requires_grad}
    assert frozen
    assert all(name.startswith(("backbone.stem", "backbone.stages.0")) for name in frozen)
    assert all(x.requires_grad for x in model.backbone.stages[1].parameters())
    assert not any("bn" in name or "norm" in name for name, _ in model.backbone.named_parameters())


def test_one_level_of_anchors_covers_the_pyramid_s_sizes():
    pyramid, single = build("retinanet_r50"), build("retinanet_r50_p4")
    assert pyramid.strides == (8, 16, 32, 64, 128)
    assert single.strides == (16,)
    assert single.head.boxes_per_cell == 5


@pytest.mark.parametrize(
    ("recipe", "changes", "last"),
    [
        ("retinanet_small_p2", {}, 5),
        ("retinanet_small_p2", {"model.neck.top_down": False}, 2),
        ("retinanet_small_fpn", {"model.neck.top_down": False, "model.neck.levels": [3, 4]}, 4),
        ("refinedet_small", {"model.neck.levels": [3, 4]}, 4),
        ("faster_rcnn_small_c4", {}, 4),
    ],
)
def test_what_nothing_reads_is_neither_computed_nor_trained(recipe, changes, last):
    """Several processes would wait for its gradients. C4's fifth stage is the RoI head's, and trains."""
    model = build(recipe, changes)
    assert model.backbone.last_level == last
    behind = model.backbone.stages[last - 1 :]
    assert all(parameter.requires_grad == (recipe == "faster_rcnn_small_c4") for parameter in behind.parameters())
    assert all(parameter.requires_grad for parameter in model.backbone.stages[: last - 1].parameters())


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            "aligndet_r50_dagger",
            {"model.neck.levels": [4]},
            "finest_kernel_size is 3, for the finest",
        ),
        ("aligndet_small", {"model.neck.levels": []}, "recipe key 'model.neck.levels'"),
        ("refinedet_small", {"model.neck.levels": []}, "recipe key 'model.neck.levels'"),
        ("aligndet_small", {"model.neck.channels": 28}, "a group norm on 28 channels"),
    ],
)
def test_a_recipe_that_makes_no_model_is_refused(recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        build(recipe, changes)
