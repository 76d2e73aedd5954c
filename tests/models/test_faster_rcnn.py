"""Faster R-CNN equals torchvision's where both define it, and keeps our conventions at the border to it."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, nms, poolers

from aligncli.analysis.complexity import count_flops, count_parameters
from aligncli.build import build_model
from aligncli.catalog import load_recipe
from aligncli.errors import RecipeError
from aligncli.models.roi_pool import RoIPool
from tests.helpers import random_batch, tiny_detector, tiny_recipe

VARIANTS = ("faster_rcnn_small_fpn", "faster_rcnn_small_p2", "faster_rcnn_small_c4")


def detector(name="faster_rcnn_small_fpn", changes=None):
    """With predictors that tell boxes apart, as trained ones do."""
    model = tiny_detector(name, changes=changes)
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        nn.init.normal_(layer.weight, std=0.3)
    for layer, std in ((model.roi_heads.box_predictor.cls_score, 0.3), (model.roi_heads.box_predictor.bbox_pred, 0.1)):
        nn.init.normal_(layer.weight, std=std)
    return model


class Maps(nn.Module):
    """Our backbone and neck, as torchvision asks for them."""

    def __init__(self, model):
        super().__init__()
        self.model = (model,)
        self.out_channels = model.neck.channels

    def forward(self, pixels):
        (model,) = self.model
        return OrderedDict((str(level), x) for level, x in enumerate(model.neck(model.backbone(pixels))))


@pytest.fixture
def aligned(monkeypatch):
    """torchvision's detector reads boxes in the frame of our anchors; its own are centred on cells' corners."""
    monkeypatch.setattr(poolers, "roi_align", partial(poolers.roi_align, aligned=True))


def theirs_around(name, model):
    """torchvision's detector with our layers, our anchors and the recipe's numbers."""
    part = tiny_recipe(name).model
    rpn, head = part.rpn, part.roi_head
    anchors = AnchorGenerator(((1.0,),) * len(model.strides), ((1.0,),) * len(model.strides))
    anchors.forward = model.rpn.anchor_generator.forward
    pool = MultiScaleRoIAlign(
        [str(level) for level in range(len(model.strides))],
        head.resolution,
        head.sampling_ratio,
        canonical_scale=getattr(head, "canonical_scale", 224),
        canonical_level=4,
    )
    theirs = FasterRCNN(
        Maps(model),
        min_size=128,
        max_size=128,
        rpn_anchor_generator=anchors,
        rpn_head=model.rpn.head,
        rpn_pre_nms_top_n_train=rpn.train_candidates,
        rpn_pre_nms_top_n_test=rpn.test_candidates,
        rpn_post_nms_top_n_train=rpn.train_proposals,
        rpn_post_nms_top_n_test=rpn.test_proposals,
        rpn_nms_thresh=rpn.nms_threshold,
        rpn_batch_size_per_image=rpn.num_samples,
        box_roi_pool=pool,
        box_head=model.roi_heads.box_head,
        box_predictor=model.roi_heads.box_predictor,
        box_batch_size_per_image=head.num_samples,
    )
    theirs.transform.torch_choice = lambda sizes: sizes[0]  # the only size, without drawing it
    return theirs


@pytest.mark.parametrize("stride", [8, 32])
def test_a_box_is_read_where_it_lies(stride):
    """On maps whose cells hold their own centres in pixels, the mean over a box's samples is its centre."""
    pool = RoIPool((stride,), resolution=3, sampling_ratio=2)
    cells = (torch.arange(16) + 0.5) * stride
    x, y = torch.meshgrid(cells, cells, indexing="xy")
    maps = {"0": torch.stack([x, y])[None]}
    box = torch.tensor([[4.5, 5.0, 8.0, 10.25]]) * stride
    read = pool(maps, [box], None)
    middle = (box[0, :2] + box[0, 2:]) / 2
    assert torch.allclose(read.mean(dim=(0, 2, 3)), middle)
    assert torch.equal(pool.pool_everywhere(list(maps.values()), box[None]), read)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.usefixtures("aligned")
def test_detections_equal_torchvision_s(name):
    model = detector(name).eval()
    images, _ = random_batch(size=128)
    with torch.no_grad():
        for ours, theirs in zip(model(images), theirs_around(name, model).eval()(images), strict=True):
            assert len(ours["scores"]) > 20
            assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-5)
            assert torch.allclose(ours["boxes"], theirs["boxes"], atol=1e-3)
            assert torch.equal(ours["labels"], theirs["labels"] - 1)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.usefixtures("aligned")
def test_losses_equal_torchvision_s(name):
    model = detector(name)
    # No two proposals of these images are a rounding apart, which would change what is drawn.
    images, targets = random_batch(size=128, seed=1)
    torch.manual_seed(5)  # of the samples
    ours = model(images, targets)
    torch.manual_seed(5)
    theirs = theirs_around(name, model)(images, [target | {"labels": target["labels"] + 1} for target in targets])
    names = {
        "rpn_class": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "roi_class": "loss_classifier",
        "roi_box": "loss_box_reg",
    }
    assert set(ours) == set(names)
    for our_name, their_name in names.items():
        assert torch.allclose(ours[our_name], theirs[their_name], rtol=1e-4), our_name


@pytest.mark.parametrize("name", VARIANTS)
def test_one_step_reaches_every_parameter_that_trains(name):
    model = tiny_detector(name)
    sum(model(*random_batch(size=128)).values()).backward()
    without = [name for name, x in model.named_parameters() if x.requires_grad and (x.grad is None or not x.grad.any())]
    assert without == []


def test_torchvision_s_labels_start_behind_the_background_and_crowds_stay_at_home():
    model = tiny_detector("faster_rcnn_small_fpn")
    given = []
    model.roi_heads.register_forward_pre_hook(lambda _, call: given.extend(call[3]))
    images, targets = random_batch()
    targets[0]["labels"] = torch.tensor([2, 0, 1])
    targets[0]["crowd"] = torch.tensor([False, True, False])
    model(images, targets)
    assert given[0]["labels"].tolist() == [3, 2]
    assert torch.equal(given[0]["boxes"], targets[0]["boxes"][[0, 2]])
    assert torch.equal(given[1]["boxes"], targets[1]["boxes"])


@pytest.mark.parametrize("label", [0, 1, 2])
def test_detected_labels_start_at_zero(label):
    model = tiny_detector("faster_rcnn_small_fpn").eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1 + label] = 5.0
        for found in model(random_batch()[0]):
            assert found["labels"].tolist() == [label] * len(found["labels"])
            assert len(found["labels"]) > 0


def test_what_is_background_is_not_detected():
    model = tiny_detector("faster_rcnn_small_fpn").eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = 10.0
        assert [len(found["scores"]) for found in model(random_batch()[0])] == [0, 0]


def test_targets_without_objects_train():
    model = tiny_detector("faster_rcnn_small_fpn")
    images, targets = random_batch()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    crowd = {
        "boxes": torch.tensor([[4.0, 4.0, 60.0, 60.0]]),
        "labels": torch.tensor([1]),
        "crowd": torch.tensor([True]),
    }
    for batch in ([nothing, nothing], [nothing, targets[0]], [crowd, nothing]):
        losses = model(images, batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert (losses["roi_box"] == 0) == (targets[0] is not batch[1])


@pytest.mark.parametrize("name", VARIANTS)
def test_images_of_different_sizes_are_detected_within_their_own_borders(name):
    model = detector(name).eval()
    images = [torch.rand(3, 60, 90), torch.rand(3, 100, 40)]
    with torch.no_grad():
        for found, image in zip(model(images), images, strict=True):
            assert len(found["boxes"]) > 0
            assert (found["boxes"] >= 0).all()
            assert (found["boxes"] <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()
            assert (found["scores"].diff() <= 0).all()
            for label in found["labels"].unique():
                mine = found["labels"] == label
                assert len(nms(found["boxes"][mine], found["scores"][mine], 0.5)) == mine.sum()


def test_images_with_different_numbers_of_proposals_are_detected_as_each_alone():
    model = detector(changes={"model.rpn.nms_threshold": 0.2}).eval()
    counts = []
    model.rpn.register_forward_hook(lambda *call: counts.append([len(boxes) for boxes in call[-1][0]]))
    images, _ = random_batch(size=128)
    with torch.no_grad():
        together = model(images)
        (alone,) = model(images[:1])
        (other,) = model(images[1:])
    assert counts[0][0] != counts[0][1]
    for found, wanted in zip(together, (alone, other), strict=True):
        assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-3)
        assert torch.allclose(found["scores"], wanted["scores"], atol=1e-5)
        assert torch.equal(found["labels"], wanted["labels"])


def test_c4_runs_stage_5_on_rois_and_never_on_the_image():
    model = detector("faster_rcnn_small_c4").eval()
    images, _ = random_batch(size=128)
    seen = []
    model.backbone.stages[3].register_forward_hook(lambda _, call, out: seen.append((call[0].shape, out.shape)))
    with torch.no_grad():
        (features,) = model.neck(model.backbone(torch.rand(2, 3, 128, 128)))
        assert features.shape == (2, 96, 8, 8)  # C4, with stride 16
        assert seen == []
        model(images)
    ((rois, pooled),) = seen
    assert rois[0] > 2
    assert rois[1:] == (96, 8, 8)
    assert pooled[1:] == (128, 4, 4)  # with its stride of 2


def test_c4_keeps_the_backbone_s_weights_under_the_names_that_pretrained_ones_have():
    backbone = {key for key in tiny_detector().state_dict() if key.startswith("backbone.")}
    c4 = set(tiny_detector("faster_rcnn_small_c4").state_dict())
    assert {key for key in c4 if key.startswith("backbone.")} == backbone
    assert {key.rsplit(".", 2)[-2] for key in c4 - backbone if key.startswith("roi_heads.")} == {
        "cls_score",
        "bbox_pred",
    }


@pytest.mark.parametrize("changes", [{"model.neck": "fpn"}, {"model.roi_head": "two_fc"}])
def test_the_neck_and_the_roi_head_of_c4_go_together(changes):
    with pytest.raises(RecipeError, match="both of them or for neither"):
        tiny_recipe("faster_rcnn_small_c4", changes)


def test_c4_needs_a_backbone_with_stages():
    class OnlyMaps(nn.Module):
        channels = {2: 8, 3: 8, 4: 8, 5: 8}  # noqa: RUF012

    recipe = tiny_recipe("faster_rcnn_small_c4", {"model.backbone": {"kind": "custom", "name": "maps", "settings": {}}})
    with pytest.raises(RecipeError, match="the backbone's own stages"):
        build_model(recipe, num_classes=3, parts={"maps": OnlyMaps})


def test_a_threshold_of_background_above_that_of_foreground_is_refused():
    with pytest.raises(RecipeError, match=r"model\.rpn.*background 0\.8 must not exceed foreground 0\.7"):
        tiny_recipe("faster_rcnn_small_fpn", {"model.rpn.background": 0.8})


def test_a_detector_of_one_stage_can_be_told_to_have_two():
    model = tiny_recipe("retinanet_small", {"model": "faster_rcnn"}).model
    assert model.kind == "faster_rcnn"
    assert model.backbone == tiny_recipe("retinanet_small").model.backbone


def test_rois_are_read_from_the_level_that_equation_1_of_the_fpn_paper_gives():
    pool = tiny_detector("faster_rcnn_small_fpn").roi_heads.box_roi_pool
    sides = torch.tensor([10.0, 83.9, 84.1, 167.0, 168.1, 1000.0])  # canonical: 168 pixels from P4
    boxes = torch.stack((torch.zeros(6), torch.zeros(6), sides, sides), dim=1)
    assert pool.map_levels([boxes]).tolist() == [0, 0, 1, 1, 2, 2]  # of P2, P3, P4


def test_the_scale_of_a_level_is_not_guessed_from_the_first_image():
    """33 pixels padded to 64: torchvision would take P2's 16 rows for stride 2, from then on."""
    changes = {"input.size_divisor": 64}
    model, fresh = (detector(changes=changes).eval() for _ in range(2))
    images, _ = random_batch()
    with torch.no_grad():
        model([torch.rand(3, 33, 33)])
        for found, wanted in zip(model(images), fresh(images), strict=True):
            assert torch.equal(found["boxes"], wanted["boxes"])
    assert model.roi_heads.box_roi_pool.strides == (4, 8, 16)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_static_forward_is_the_detector_without_nms_among_proposals(name):
    model = detector(name, {"model.rpn.nms_threshold": 1.0}).eval()
    nn.init.normal_(model.rpn.head.bbox_pred.weight, std=0.01)  # no proposal leaves the image
    images, _ = random_batch(size=128)
    pixels, sizes = model.batch_images(images)
    with torch.no_grad():
        found = model.postprocess(model.raw_forward(pixels), sizes)
        for ours, wanted in zip(found, model(images), strict=True):
            assert torch.allclose(ours["boxes"], wanted["boxes"], atol=1e-3)
            assert torch.allclose(ours["scores"], wanted["scores"], atol=1e-5)
            assert torch.equal(ours["labels"], wanted["labels"])


def test_anchors_and_proposals_keep_float32_under_autocast():
    """In bfloat16 a coordinate near 120 would be a multiple of one half."""
    model = detector()
    proposals = []
    model.rpn.register_forward_hook(lambda *call: proposals.extend(call[-1][0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*random_batch(size=128))
        with torch.no_grad():
            found = model.eval()(random_batch(size=128)[0])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    for boxes in [*proposals, *(one["boxes"] for one in found)]:
        assert boxes.dtype == torch.float32
        assert ((boxes * 2).frac() != 0).any()


K = 80  # COCO's classes


def on_meta(name, num_classes=K):
    with torch.device("meta"):
        return build_model(load_recipe(name), num_classes=num_classes)


def test_with_a_pyramid_it_has_torchvision_s_parameters():
    theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=K + 1
    )
    found = {name: count_parameters(part) for name, part in on_meta("faster_rcnn_r50_fpn").named_children()}
    assert found["neck"] == count_parameters(theirs.backbone.fpn)
    assert found["rpn"] == count_parameters(theirs.rpn)
    assert found["roi_heads"] == count_parameters(theirs.roi_heads)


@pytest.mark.parametrize(
    ("name", "strides"), [("faster_rcnn_r50_fpn", (4, 8, 16, 32, 64)), ("faster_rcnn_r50_c4", (16,))]
)
def test_both_variants_have_anchors_of_32_to_512_pixels(name, strides):
    model = load_recipe(name).model
    neck = on_meta(name).neck
    assert neck.strides == strides
    sides = [scale * stride for stride in neck.strides for scale in model.rpn.anchors.scales]
    assert sides == [32, 64, 128, 256, 512]
    assert model.rpn.anchors.ratios == (0.5, 1.0, 2.0)


def test_p6_makes_proposals_only():
    pool = on_meta("faster_rcnn_r50_fpn").roi_heads.box_roi_pool
    assert pool.strides == (4, 8, 16, 32)


def test_flops_of_both_variants_are_those_of_their_layers_by_hand():
    cells = sum(-(-800 // stride) * -(-1344 // stride) for stride in (4, 8, 16, 32, 64))
    fpn = count_flops(build_model(load_recipe("faster_rcnn_r50_fpn"), num_classes=K), 800, 1344)
    assert list(fpn) == ["backbone", "neck", "rpn", "roi_heads"]
    assert fpn["rpn"] == 2 * cells * (9 * 256 * 256 + 3 * 5 * 256)
    predictors = 5 * (K + 1)
    assert fpn["roi_heads"] == 2 * 1000 * (49 * 256 * 1024 + 1024 * 1024 + 1024 * predictors)
    c4 = count_flops(build_model(load_recipe("faster_rcnn_r50_c4"), num_classes=K), 800, 1344)
    assert list(c4) == ["backbone", "rpn", "roi_heads"]
    assert c4["rpn"] == 2 * 50 * 84 * (9 * 1024 * 1024 + 15 * 5 * 1024)
    # Bottlenecks of stage 5: the first 1x1 sees 14x14 positions, its stride is in the 3x3, as torchvision has it
    first = 14 * 14 * 1024 * 512 + 49 * (9 * 512 * 512 + 512 * 2048 + 1024 * 2048)
    others = 2 * 49 * (2048 * 512 + 9 * 512 * 512 + 512 * 2048)
    assert c4["roi_heads"] == 2 * 1000 * (first + others + 2048 * predictors)
