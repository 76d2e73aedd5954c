"""Backbones: what a network's name and origin decide, and whose pixel statistics a detector uses."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from aligncli.catalog import load_recipe
from aligncli.config import EfficientNetLite0Config
from aligncli.errors import RecipeError
from aligncli.models.backbone import IMAGENET_MEAN, IMAGENET_STD, FrozenNorm, resnet_backbone
from tests.helpers import random_batch, tiny_detector


def resnet(name, **options):
    with torch.device("meta"):
        return resnet_backbone(name, **{"frozen_stages": 2, "frozen_norm": True} | options)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 128, 256, 512)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("resnet101", (256, 512, 1024, 2048)),
        ("resnext101_32x8d", (256, 512, 1024, 2048)),
    ],
)
@pytest.mark.parametrize("stride_in", ["3x3", "1x1"])
def test_channels_and_strides_are_those_of_the_maps(name, channels, stride_in):
    backbone = resnet(name, stride_in=stride_in)
    maps = backbone(torch.zeros(1, 3, 64, 64, device="meta"))
    assert tuple(backbone.channels.values()) == channels
    assert {level: tuple(x.shape) for level, x in maps.items()} == {
        level: (1, width, 64 // 2**level, 64 // 2**level) for level, width in zip((2, 3, 4, 5), channels)
    }


def test_msra_s_networks_halve_the_map_in_the_first_1x1_convolution_of_a_stage():
    theirs, ours = resnet("resnet50"), resnet("resnet50", stride_in="1x1")
    for stage in (1, 2, 3):
        assert (theirs.stages[stage][0].conv1.stride, theirs.stages[stage][0].conv2.stride) == ((1, 1), (2, 2))
        assert (ours.stages[stage][0].conv1.stride, ours.stages[stage][0].conv2.stride) == ((2, 2), (1, 1))


def test_the_epsilon_of_all_batch_norms_is_the_recipe_s():
    norms = [module for module in resnet("resnet18", norm_epsilon=0.0).modules() if hasattr(module, "eps")]
    assert {norm.eps for norm in norms} == {0.0}
    assert len(norms) == 20


def test_pixel_statistics_are_the_backbone_s():
    lite = EfficientNetLite0Config().model_dump()
    for changes, mean, std in (({}, IMAGENET_MEAN, IMAGENET_STD), ({"model.backbone": lite}, (0.5,) * 3, (0.5,) * 3)):
        model = tiny_detector(changes=changes)
        image = torch.rand(3, 64, 64)
        pixels, _ = model.batch_images([image])
        expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        assert torch.allclose(pixels[0], expected)


@pytest.mark.parametrize(
    "backbone",
    [
        {"kind": "tiny", "frozen_stages": 2},
        {"kind": "resnet", "name": "resnet18", "frozen_norm": False},
        {"kind": "efficientnet_lite0", "frozen_norm": False},
    ],
)
def test_batch_norms_of_frozen_stages_keep_their_statistics_and_use_them(backbone):
    model = tiny_detector(changes={"model.backbone": backbone})
    frozen = nn.Sequential(model.backbone.stem, model.backbone.stages[0])
    image = torch.rand(1, 3, 32, 32)
    for _ in range(2):  # as it is built, and after an evaluation
        before = {key: x.clone() for key, x in model.backbone.state_dict().items()}
        model(*random_batch())
        moved = {key for key, x in model.backbone.state_dict().items() if not torch.equal(x, before[key])}
        assert any(key.startswith("stages.1.") for key in moved)
        assert all(key.startswith(("stages.1.", "stages.2.", "stages.3.")) for key in moved)
        in_training = frozen(image)
        assert torch.equal(in_training, copy.deepcopy(frozen).eval()(image))
        assert not any(module.training for module in model.eval().modules())
        model.train()


def test_photo_lite0_differs_from_photo_in_what_it_starts_from():
    photo, lite = load_recipe("photo"), load_recipe("photo_lite0")
    told = {"name": "", "summary": "", "weights": "none", "optimizer.lr": 1.0}
    same = photo.changed({**told, "model.backbone": lite.model.backbone.model_dump()})
    assert lite.changed(told) == same


def test_a_frozen_norm_writes_torchvision_s_result_over_its_input():
    torch.manual_seed(0)
    ours, theirs = FrozenNorm(4, eps=1e-3).double(), FrozenBatchNorm2d(4, eps=1e-3).double()
    for buffer in ours.buffers():
        buffer.uniform_(0.5, 2.0)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    wanted, written = theirs(x), x.clone()
    assert torch.allclose(ours(written), wanted, rtol=1e-12)
    assert torch.allclose(written, wanted, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x: ours(x * 1.0), (x.requires_grad_(),))


def test_in_mixed_precision_a_frozen_norm_is_torchvision_s():
    x = torch.randn(1, 4, 3, 3).bfloat16()
    before = x.clone()
    assert torch.equal(FrozenNorm(4)(x), FrozenBatchNorm2d(4)(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_through_frozen_norms_are_those_with_torchvision_s(name):
    torch.manual_seed(0)
    ours = resnet_backbone(name, frozen_stages=0, frozen_norm=True).double()
    theirs = copy.deepcopy(ours)
    for norm in (module for module in theirs.modules() if isinstance(module, FrozenNorm)):
        norm.__class__ = FrozenBatchNorm2d
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    for backbone in (ours, theirs):
        sum(x.square().mean() for x in backbone(images).values()).backward()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(torch.allclose(one.grad, other.grad, rtol=1e-9) for one, other in pairs if other.grad is not None)


def test_a_batch_norm_that_trains_without_an_epsilon_is_refused_as_torch_2_11_would_at_the_first_batch():
    backbone = {"kind": "resnet", "name": "resnet18", "norm_epsilon": 0.0}
    retinanet = load_recipe("retinanet_r50")
    assert retinanet.changed({"model.backbone": backbone}).model.backbone.norm_epsilon == 0
    with pytest.raises(RecipeError, match=r"model\.backbone.*norm_epsilon=0 is for frozen norms: set it to 1e-5"):
        retinanet.changed({"model.backbone": {**backbone, "frozen_norm": False}})
