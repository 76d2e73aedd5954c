"""What every dense head promises, whichever method it is: as the DPM of AlignDet and as a detector of its own."""

from typing import get_args

import pytest
import torch

from aligncli.boxes import clip_boxes
from aligncli.config import DPM, Head
from aligncli.models.heads.base import DenseHead
from tests.helpers import random_batch, tiny_detector


def kinds(union) -> list[str]:
    """Kinds of a discriminated union's members, without a user's own."""
    members = get_args(get_args(union)[0])
    return sorted(kind for member in members if (kind := member.model_fields["kind"].default) != "custom")


def dpm_detector(kind: str):
    return tiny_detector(changes={"model.dpm": kind})


def head_detector(kind: str):
    return tiny_detector("retinanet_small", changes={"model.head": kind})


def features_of(model, *, size: int = 96):
    pixels, sizes = model.batch_images(random_batch(size=size)[0])
    features = model.neck(model.backbone(pixels))
    return features, model.geometry(features, sizes)


def test_both_unions_are_filled():
    assert {"retinanet", "rpn", "ssd", "fcos", "foveabox", "fsaf", "densebox", "metaanchor"} <= set(kinds(DPM))
    assert {"retinanet", "ssd", "fcos", "foveabox", "fsaf", "guided_anchoring", "reppoints"} <= set(kinds(Head))


@pytest.mark.parametrize("kind", kinds(DPM))
def test_a_dpm_gives_one_finite_detached_box_a_cell_inside_the_image(kind):
    model = dpm_detector(kind)
    for parameter in model.dpm.parameters():
        torch.nn.init.normal_(parameter, std=3.0)  # a DPM gone wild
    features, geometry = features_of(model, size=90)
    refined, losses = model.refine(features, geometry, None)
    assert losses == {}
    assert [x.shape for x in refined] == [(2, 144, 4), (2, 36, 4), (2, 9, 4)]
    boxes = torch.cat(refined, dim=1)
    assert not boxes.requires_grad
    assert torch.isfinite(boxes).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 90
    assert (boxes[..., 2:] - boxes[..., :2]).min() >= model.min_side - 1e-4


@pytest.mark.parametrize("kind", kinds(DPM))
def test_a_dpm_s_refined_anchors_are_each_level_s_own_boxes_clipped(kind):
    model = dpm_detector(kind).eval()
    features, geometry = features_of(model)
    predictions = model.dpm.predict(features, geometry, classify=False)
    refined, _ = model.refine(features, geometry, None)
    for boxes, references, values in zip(refined, predictions.references, predictions.values, strict=True):
        decoded = model.dpm.decode(references, values)
        assert torch.equal(boxes, clip_boxes(decoded, geometry.sizes, min_side=model.min_side))


@pytest.mark.parametrize("kind", kinds(DPM))
def test_a_dpm_computes_no_classes_at_test_time(kind):
    features, geometry = features_of(dpm := dpm_detector(kind))
    assert dpm.dpm.predict(features, geometry, classify=False).logits is None
    assert dpm.dpm.predict(features, geometry, classify=True).logits is not None


@pytest.mark.parametrize("kind", kinds(DPM))
def test_fresh_refined_anchors_lie_on_their_own_cells(kind):
    model = dpm_detector(kind).eval()
    features, geometry = features_of(model)
    refined, _ = model.refine(features, geometry, None)
    for boxes, (height, width), stride in zip(refined, geometry.shapes, geometry.strides, strict=True):
        x = (torch.arange(width) + 0.5) * stride
        y = (torch.arange(height) + 0.5) * stride
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
        inside = (boxes[..., :2] <= centers) & (centers <= boxes[..., 2:])
        # Random weights, which are others on other processors, move a few boxes by half their size. Cells in a wrong
        # order would leave less than .6 of the finest level's inside.
        assert inside.float().mean() > 0.95


@pytest.mark.parametrize("kind", kinds(Head))
def test_a_head_says_as_many_boxes_as_it_has_cells_and_anchors(kind):
    model = head_detector(kind).eval()
    features, geometry = features_of(model)
    assert isinstance(model.head, DenseHead)
    candidates = model.head.candidates(features, geometry)
    cells = [height * width for height, width in geometry.shapes]
    assert len(candidates) % len(cells) == 0  # FSAF has candidates of two branches
    assert sum(level.logits.shape[1] for level in candidates) >= sum(cells) * model.head.boxes_per_cell
    for level in candidates:
        count = level.logits.shape[1]
        assert level.logits.shape == (2, count, 3)
        assert level.values.shape == (2, count, 4)
        assert level.references.shape[-2:] == (count, 4)
        boxes = level.decode(level.references.expand(2, -1, -1), level.values)
        assert boxes.shape == (2, count, 4)
        assert torch.isfinite(boxes).all()
        # Post-processing decodes the best rows alone: a row must not depend on the others
        rows = torch.arange(0, count, 3)
        some = level.decode(level.references.expand(2, -1, -1)[:, rows], level.values[:, rows])
        assert torch.allclose(some, boxes[:, rows], atol=1e-4)


def both(test):
    cases = [("dpm", kind) for kind in kinds(DPM)] + [("head", kind) for kind in kinds(Head)]
    return pytest.mark.parametrize(("place", "kind"), cases)(test)


def detector(place: str, kind: str):
    return dpm_detector(kind) if place == "dpm" else head_detector(kind)


@both
def test_losses_are_finite_scalars_and_never_negative(place, kind):
    losses = detector(place, kind)(*random_batch())
    assert losses
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert torch.isfinite(loss), name
        assert loss >= 0, name


@both
def test_images_without_objects_train(place, kind):
    images, targets = random_batch()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for batch in ([nothing, nothing], [targets[0], nothing]):
        model = detector(place, kind)
        loss = sum(model(images, batch).values())
        assert torch.isfinite(loss)
        loss.backward()
        assert all(torch.isfinite(x.grad).all() for x in model.parameters() if x.grad is not None)


@both
def test_a_crowd_region_is_nobody_s_object(place, kind):
    """The image is one crowd: not a single box is learned from it."""
    images, _ = random_batch()
    crowd = {
        "boxes": torch.tensor([[4.0, 4.0, 60.0, 60.0]]),
        "labels": torch.zeros(1, dtype=torch.int64),
        "crowd": torch.ones(1, dtype=torch.bool),
    }
    losses = detector(place, kind)(images, [crowd, crowd])
    boxes = {name: loss.item() for name, loss in losses.items() if "class" not in name and "object" not in name}
    assert boxes
    assert all(value == 0 for name, value in boxes.items() if "location" not in name), boxes


@both
def test_bf16_autocast_trains(place, kind):
    model = detector(place, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*random_batch())
    assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()


@both
def test_the_same_batch_gives_the_same_losses(place, kind):
    torch.manual_seed(1)
    first = detector(place, kind)(*random_batch())
    torch.manual_seed(1)
    second = detector(place, kind)(*random_batch())
    assert first == second
