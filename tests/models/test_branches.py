"""The outputs of two branches lie in the order of the anchors, and start from the prior."""

import pytest
import torch
from torch import nn

from aligncli.build import build_model
from aligncli.catalog import load_recipe
from aligncli.models.branches import Branches, OffsetPredictor, flatten_cells, init_gaussian, init_he


def head(**changes):
    settings = {"num_classes": 3, "num_anchors": 2, "num_convs": 1, "tower_channels": 8, "norm": "none"}
    return Branches(4, **(settings | changes))


def test_outputs_are_cells_row_major_then_anchors():
    channels, height, width = 2 * 4, 3, 5  # two anchors with four values each
    x = torch.arange(channels * height * width).reshape(1, channels, height, width)
    flat = flatten_cells(x, 4).reshape(height, width, 2, 4)
    assert flat[1, 3, 1, 2] == x[0, 1 * 4 + 2, 1, 3]


def test_shapes_a_level():
    features = [torch.randn(2, 4, 6, 5), torch.randn(2, 4, 3, 2)]
    assert [tuple(x.shape) for x in head().classify(features)] == [(2, 60, 3), (2, 12, 3)]
    assert [tuple(x.shape) for x in head().regress(features)] == [(2, 60, 4), (2, 12, 4)]


def test_a_fresh_head_says_one_percent_object_and_no_shift():
    features = [torch.randn(1, 4, 6, 5) * 0.1]
    assert torch.allclose(head().classify(features)[0].sigmoid(), torch.tensor(0.01), atol=1e-3)
    assert torch.allclose(head().regress(features)[0], torch.tensor(0.0), atol=1e-2)


def test_group_norm_has_eight_channels_a_group_and_no_towers_are_possible():
    normed = head(norm="group", tower_channels=32)
    groups = [module.num_groups for module in normed.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert groups == [4, 4]
    assert head(num_convs=0).classify([torch.randn(1, 4, 2, 2)])[0].shape == (1, 8, 3)


def deviations(module):
    return {name: float(p.detach().std()) for name, p in module.named_parameters() if p.dim() == 4}


@pytest.mark.parametrize(("norm", "second"), [("group", 3), ("none", 2)])
def test_he_initialisation_is_for_towers_and_not_for_predictors(norm, second):
    branches = head(norm=norm, num_convs=2, tower_channels=64)
    init_he(branches)
    sigma = deviations(branches)
    he = (2 / (64 * 9)) ** 0.5
    for tower in ("class_tower", "box_tower"):
        assert sigma[f"{tower}.{second}.weight"] == pytest.approx(he, rel=0.05)
    assert sigma["class_predictor.weight"] == pytest.approx(0.01, rel=0.1)
    assert sigma["box_predictor.weight"] == pytest.approx(0.01, rel=0.1)


def test_offset_predictors_keep_their_own_deviation():
    module = nn.Sequential(nn.Conv2d(64, 64, 3, bias=False), OffsetPredictor(64, 18, std=0.001))
    for init in (init_gaussian, init_he):
        init(module)
        assert deviations(module)["1.weight"] == pytest.approx(0.001, rel=0.1)
    assert deviations(module)["0.weight"] == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("init", ["gaussian", "he"])
def test_recipes_choose_the_initialisation_of_towers_and_adm(init):
    recipe = load_recipe("aligndet_small_deform")
    model = build_model(recipe.changed({"model.dpm.tower.init": init, "model.adm.init": init}), 6)
    sigma = deviations(model)
    for name, fan_in in (
        ("dpm.branches.box_tower.3.weight", 64),
        ("adm.trunk.alignment.weight", 64),
        ("adm.trunk.layers.2.weight", 128),
    ):
        wanted = 0.01 if init == "gaussian" else (2 / (fan_in * 9)) ** 0.5
        assert sigma[name] == pytest.approx(wanted, rel=0.05)
    assert sigma["adm.trunk.alignment.predictors.8.weight"] == pytest.approx(0.01, rel=0.1)
    assert sigma["adm.class_predictor.weight"] == pytest.approx(0.01, rel=0.1)


HE = {"model.dpm.tower.norm": "none", "model.dpm.tower.init": "he", "model.adm.norm": "none", "model.adm.init": "he"}


@pytest.mark.parametrize("alignment", ["conv", "deform", "guided", "roi_conv"])
def test_without_norms_he_initialisation_reaches_every_tower_and_alignment(alignment):
    head4 = {"model.adm.num_convs": 2, "model.adm.conv_kernel_size": 3, "model.adm.alignment.kernel_size": 3}
    changes = HE | {"model.adm.alignment": alignment} | head4
    sigma = deviations(build_model(load_recipe("aligndet_small").changed(changes), 6))
    for name, fan_in in (
        ("dpm.branches.class_tower.2.weight", 64),
        ("adm.trunk.alignment.weight", 64),
        ("adm.trunk.layers.1.weight", 128),
        ("adm.trunk.layers.3.weight", 128),
    ):
        assert sigma[name] == pytest.approx((2 / (fan_in * 9)) ** 0.5, rel=0.05)
    rest = [x for name, x in sigma.items() if "predictor" in name]
    assert rest == pytest.approx([0.01] * len(rest), rel=0.4)  # guided alignment has 36 weights a predictor


@pytest.mark.parametrize("place", ["before_tower", "after_tower"])
def test_without_norms_he_initialisation_reaches_the_roi_conv_of_an_anchor_head(place):
    tower = {"model.head.tower.norm": "none", "model.head.tower.init": "he", "model.head.roi_conv": place}
    sigma = deviations(build_model(load_recipe("retinanet_small_p2_roiconv").changed(tower), 6).head)
    aligned = [x for name, x in sigma.items() if name.endswith("alignment.weight")]
    assert len(aligned) == (1 if place == "before_tower" else 2)
    assert aligned == pytest.approx([(2 / (64 * 9)) ** 0.5] * len(aligned), rel=0.05)
