"""Where detectors look: identities that hold for any weights."""

import pytest
import torch
from torchvision.models import get_model
from torchvision.ops import deform_conv2d

from aligncli.analysis.alignment.distributions import paired_iou
from aligncli.analysis.alignment.locations import observe_detector
from aligncli.analysis.alignment.taps import deciding_kernel
from aligncli.analysis.alignment.torchvision_locations import TorchvisionObserver
from aligncli.errors import UserError
from aligncli.ops import implicit_rois, roi_taps
from tests.helpers import random_batch, tiny_detector


@torch.inference_mode()
def observe(name, *, size=96, changes=None):
    images, _ = random_batch(2, size=size)
    observer = observe_detector(tiny_detector(name, changes=changes).eval())
    return observer, observer(images)


def ious(locations, name=None):
    name = name or next(iter(locations.pairs))
    return paired_iou(*locations.pairs[name])


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_roi_conv_looks_exactly_at_its_refined_anchors(kernel_size):
    changes = {"model.adm.alignment.kernel_size": kernel_size}
    observer, levels = observe("aligndet_small", changes=changes)
    assert observer.title == f"RoIConv {kernel_size}×{kernel_size}"
    assert [locations.level for locations in levels] == ["P3", "P4", "P5"]
    for locations in levels:
        assert list(locations.pairs) == ["refined anchors", "initial anchors"]
        assert (ious(locations) == 1).all()
        assert (ious(locations, "initial anchors") == 1).all()
        torch.testing.assert_close(locations.taps(), roi_taps(locations.boxes, kernel_size, 1.0))


def test_the_finest_level_of_the_dagger_has_a_kernel_of_its_own():
    changes = {"model.adm.alignment.kernel_size": 7, "model.adm.alignment.finest_kernel_size": 3}
    observer, levels = observe("aligndet_small", changes=changes)
    assert observer.title == "RoIConv 7×7, finest level RoIConv 3×3"
    assert [locations.taps().shape[2] for locations in levels] == [9, 49, 49]


def test_a_convolution_fits_anchors_of_its_own_size_and_not_refined_ones():
    _, levels = observe("aligndet_small_conv")  # anchors of 3 strides, a 3x3 kernel
    for locations, stride in zip(levels, (8, 16, 32)):
        cells = 96 // stride
        rois = implicit_rois(cells, cells, 3, stride).view(1, -1, 4)
        torch.testing.assert_close(locations.implicit, rois.expand(2, -1, -1))
        assert (ious(locations, "initial anchors") == 1).all()
        assert (ious(locations) < 1).any()
    anchors_of_four = {"model.dpm.anchors.scales": (4.0,)}  # (3 / 4)^2, as in the paper
    _, levels = observe("aligndet_small_conv", changes=anchors_of_four)
    torch.testing.assert_close(ious(levels[0], "initial anchors"), torch.full((2, 144), 9 / 16))


@pytest.mark.parametrize("kind", ["deform", "guided"])
def test_the_taps_of_learned_offsets_are_where_the_convolution_reads(kind):
    # A map that holds its own coordinates gives them back at every tap.
    model = tiny_detector(f"aligndet_small_{kind}").eval()
    alignment = model.adm.trunk.alignment
    seen = {}
    alignment.register_forward_hook(lambda _, inputs, __: seen.update(features=inputs[0], boxes=inputs[1]))
    with torch.inference_mode():
        locations = observe_detector(model)(random_batch(2, size=96)[0])[1]
        taps = locations.taps()
        offsets = alignment.offsets([seen["features"][1]], [seen["boxes"][1]], [16])[0]
        y, x = torch.meshgrid(*[torch.arange(30.0) - 12 + 0.5] * 2, indexing="ij")  # twelve cells around the map
        pick = torch.zeros(18, 2, 3, 3)
        for tap in range(9):
            pick[2 * tap, 0, tap // 3, tap % 3] = pick[2 * tap + 1, 1, tap // 3, tap % 3] = 1
        wide = torch.nn.functional.pad(offsets, (12, 12, 12, 12))
        read = deform_conv2d(torch.stack([x, y]).expand(2, -1, -1, -1), wide, pick, padding=1)[..., 12:18, 12:18]
    torch.testing.assert_close(taps, read.unflatten(1, (9, 2)).permute(0, 3, 4, 1, 2).flatten(1, 2) * 16)
    assert (taps >= locations.implicit[..., None, :2]).all()
    assert (taps <= locations.implicit[..., None, 2:]).all()


def test_all_anchors_of_a_cell_share_one_implicit_roi():
    observer, levels = observe("retinanet_small")
    assert observer.title == "conv 3×3"
    for locations in levels:
        assert list(locations.pairs) == ["anchors", "decoded boxes"]
        by_cell = locations.implicit.unflatten(1, (-1, 9))
        assert (by_cell == by_cell[:, :, :1]).all()
    square = ious(levels[0]).unflatten(1, (-1, 3, 3))[..., 1]  # scales x ratios; the ratio 1
    sides = 2 ** (torch.arange(3) / 3)
    torch.testing.assert_close(square, (sides**-2).expand_as(square))


def test_roi_conv_on_predefined_anchors_looks_exactly_at_them():
    observer, levels = observe("retinanet_small_p2_roiconv")
    assert observer.title == "RoIConv 3×3"
    assert all((ious(locations, "anchors") == 1).all() for locations in levels)


@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        ("fcos_small", ["decoded boxes"]),
        ("reppoints_small", ["decoded boxes"]),
        ("guided_anchoring_small", ["refined anchors", "decoded boxes"]),
        ("refinedet_small", ["refined anchors", "decoded boxes"]),
    ],
)
def test_other_heads_show_what_they_have(name, boxes):
    _, levels = observe(name)
    for locations in levels:
        assert list(locations.pairs) == boxes
        assert locations.implicit.shape == locations.final.shape == locations.boxes.shape
        assert locations.taps().shape == (*locations.scores.shape, 9, 2)
        assert ((locations.scores >= 0) & (locations.scores <= 1)).all()


def test_scores_and_final_boxes_are_the_detections():
    model = tiny_detector("aligndet_small", changes={"model.postprocess.score_threshold": 0.0}).eval()
    images, _ = random_batch(1)
    with torch.inference_mode():
        found = model(images)[0]
        levels = observe_detector(model)(images)
    scores, boxes = (torch.cat([getattr(part, name)[0] for part in levels]) for name in ("scores", "final"))
    best = scores.argmax()
    torch.testing.assert_close(found["scores"][0], scores[best])
    torch.testing.assert_close(found["boxes"][0], boxes[best])


def test_locations_in_the_padding_are_not_real():
    images = [torch.rand(3, 96, 96), torch.rand(3, 40, 64)]
    with torch.inference_mode():
        finest = observe_detector(tiny_detector().eval())(images)[0]
    real = finest.real.view(2, 12, 12)
    assert real[0].all()
    assert real[1, :5, :8].all()
    assert real[1].sum() == 5 * 8


def test_the_deciding_kernel_is_the_last_spatial_one():
    layers = [torch.nn.Conv2d(2, 2, 5), torch.nn.Conv2d(2, 2, 3), torch.nn.Conv2d(2, 2, 1)]
    assert deciding_kernel(torch.nn.Sequential(*layers)) == 3
    assert deciding_kernel(layers[2]) == 1


@torch.inference_mode()
def test_torchvisions_anchors_lie_half_a_cell_off():
    torch.manual_seed(0)
    network = get_model("retinanet_resnet50_fpn_v2", weights=None, weights_backbone=None).eval()
    network.transform.min_size = (128,)
    observer = TorchvisionObserver(network, name="torchvision:retinanet_resnet50_fpn_v2")
    levels = observer([torch.rand(3, 128, 128)])
    assert observer.remarks == [
        "its anchors lie up to 0.50 cells left of, and 0.50 above, the centres of the cells that predict them"
    ]
    assert [locations.level for locations in levels] == ["P3", "P4", "P5", "P6", "P7"]
    for locations, stride in zip(levels, (8, 16, 32, 64, 128)):
        centers = {name: (boxes[..., :2] + boxes[..., 2:]) / 2 for name, (boxes, _) in locations.pairs.items()}
        middle = (locations.implicit[..., :2] + locations.implicit[..., 2:]) / 2
        torch.testing.assert_close(centers["centred anchors"], middle)
        torch.testing.assert_close(centers["anchors"], middle - stride / 2)
        assert (ious(locations, "centred anchors").mean() > ious(locations, "anchors").mean()).all()


@pytest.mark.parametrize("name", ["fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
@torch.inference_mode()
def test_torchvisions_scores_and_boxes_are_its_detections(name):
    torch.manual_seed(0)
    network = get_model(name, weights=None, weights_backbone=None, num_classes=5).eval()
    network.score_thresh = 0.0
    if name.startswith("fcos"):
        network.transform.min_size = (128,)
    image = torch.rand(3, 96, 128)
    found = network([image])[0]
    levels = TorchvisionObserver(network, name=name)([image])
    scores, boxes = (torch.cat([getattr(part, part_name)[0] for part in levels]) for part_name in ("scores", "final"))
    torch.testing.assert_close(found["scores"][0], scores.max())
    level = boxes[scores > scores.max() - 1e-5]  # random networks rate many locations alike
    assert (level - found["boxes"][0]).abs().amax(dim=1).min() < 1e-3


def test_two_stage_detectors_are_refused():
    network = get_model("fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, weights_backbone=None)
    with pytest.raises(UserError, match="no one-stage detector"):
        TorchvisionObserver(network, name="torchvision:fasterrcnn")
    with pytest.raises(UserError, match="no one-stage detector"):
        observe_detector(network)


def test_an_alignment_that_does_not_say_where_it_looks_is_refused():
    model = tiny_detector()
    model.adm.trunk.alignment = torch.nn.Conv2d(3, 3, 3)
    with pytest.raises(UserError, match="give it a method implicit_rois"):
        observe_detector(model)
