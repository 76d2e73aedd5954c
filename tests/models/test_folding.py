"""Folded norms change nothing but rounding, and nothing that they must not touch."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from aligncli.models.backbone import resnet_backbone, tiny_backbone
from aligncli.models.efficientnet_lite import efficientnet_lite0_backbone
from aligncli.models.folding import NORMS, fold_norms
from tests.helpers import random_batch, tiny_detector


def randomize_norms(model):
    """Statistics and affine parts as of no trained network, so that a wrong formula shows."""
    for module in model.modules():
        if isinstance(module, NORMS):
            for name, low, high in (
                ("weight", 0.5, 1.5),
                ("bias", -0.5, 0.5),
                ("running_mean", -0.5, 0.5),
                ("running_var", 0.3, 2.0),
            ):
                getattr(module, name).data.uniform_(low, high)
    return model


EPSILON = {True: 0.0, False: 1e-3}  # a batch norm that trains has none of 0
BACKBONES = {
    "resnet18": lambda frozen: resnet_backbone("resnet18", frozen_stages=2, frozen_norm=frozen),
    "resnet50": lambda frozen: resnet_backbone(
        "resnet50", frozen_stages=2, frozen_norm=frozen, norm_epsilon=EPSILON[frozen]
    ),
    "resnext101": lambda frozen: resnet_backbone("resnext101_32x8d", frozen_stages=2, frozen_norm=frozen),
    "lite0": lambda frozen: efficientnet_lite0_backbone(frozen_stages=2, frozen_norm=frozen),
    "tiny": lambda frozen: tiny_backbone((8, 16, 16, 16, 16), frozen_stages=0, frozen_norm=frozen),
}


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen norms", "batch norms"])
@pytest.mark.parametrize("name", BACKBONES)
def test_folded_backbones_have_no_norms_and_the_same_maps(name, frozen):
    torch.manual_seed(0)
    backbone = randomize_norms(BACKBONES[name](frozen)).eval().double()
    folded = fold_norms(backbone)
    assert not any(isinstance(module, NORMS) for module in folded.modules())
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        pairs = list(zip(backbone(images).values(), folded(images).values(), strict=True))
    assert all(float((found - wanted).abs().max() / wanted.abs().max()) < 1e-10 for wanted, found in pairs)


def test_in_float32_a_folded_resnet_is_the_same_to_five_digits():
    torch.manual_seed(0)
    backbone = randomize_norms(BACKBONES["resnet50"](True)).eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        pairs = zip(backbone(images).values(), fold_norms(backbone)(images).values(), strict=True)
        assert all(float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5 for wanted, found in pairs)


@pytest.mark.parametrize("name", ["aligndet_small", "faster_rcnn_small_c4"])
def test_a_detector_is_folded_as_a_copy_and_itself_left_alone(name):
    model = randomize_norms(tiny_detector(name)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, _ = random_batch()
    folded = fold_norms(model)
    assert not any(isinstance(module, NORMS) for module in folded.backbone.modules())
    with torch.no_grad():
        for wanted, found in zip(model(images), folded(images), strict=True):
            assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-3)
            assert torch.equal(found["labels"], wanted["labels"])
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


class NormalizedConv2d(nn.Conv2d):
    """A convolution that divides its weight by its norm, so that folding a scale into it would have no effect."""

    def forward(self, input):
        return nn.functional.conv2d(input, self.weight / self.weight.norm(), self.bias, padding=1)


def test_a_convolution_with_a_norm_for_each_level_is_not_folded():
    torch.manual_seed(0)
    shared = nn.Conv2d(4, 4, 3, padding=1)
    levels = randomize_norms(nn.ModuleList(nn.Sequential(shared, FrozenBatchNorm2d(4)) for _ in range(2)))
    x = torch.randn(1, 4, 8, 8)
    for wanted, found in zip(levels, fold_norms(levels), strict=True):
        assert isinstance(found[1], FrozenBatchNorm2d)
        assert torch.equal(found(x), wanted(x))


def test_a_convolution_of_an_unknown_kind_is_not_folded():
    torch.manual_seed(0)
    model = randomize_norms(nn.Sequential(NormalizedConv2d(4, 4, 3), nn.BatchNorm2d(4))).eval()
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(fold_norms(model)(x), model(x))


def test_a_norm_without_statistics_of_its_own_stays():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    folded = fold_norms(layers)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(folded(x), layers.eval()(x))
