"""FSAF: online feature selection against a loop over objects, levels and cells; its losses; its two branches."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, sigmoid_focal_loss

from aligncli.anchors import AnchorGenerator
from aligncli.config import FSAFHeadConfig
from aligncli.matching import BACKGROUND, IGNORED, Matcher
from aligncli.models.head_loss import HeadLoss
from aligncli.models.heads import cells as cells_module
from aligncli.models.heads import fsaf as fsaf_module
from aligncli.models.heads.cells import encode_distances, in_core
from aligncli.models.heads.fsaf import FSAFHead, FSAFPredictions
from aligncli.models.heads.retinanet import RetinaNetHead
from tests.helpers import random_batch, tiny_detector
from tests.models.heads.scenes import (
    branches,
    cells_of,
    pyramid,
    random_outputs,
    random_target,
    references_of,
    target,
    truth_of,
)


def fsaf(*, with_anchors=False, **changes):
    settings = {
        "distance_unit": 4.0,
        "effective": 0.2,
        "ignoring": 0.5,
        "focal_alpha": 0.25,
        "focal_gamma": 2.0,
        "weight": 1.0,
    }
    anchor_based = None
    if with_anchors:
        loss = HeadLoss(
            matcher=Matcher(foreground=0.5, background=0.4, low_quality=True),
            focal_alpha=0.25,
            focal_gamma=2.0,
            smooth_l1_beta=0.11,
            normalizer="positives",
            weight=1.0,
            box_stds=(1.0, 1.0, 1.0, 1.0),
        )
        anchors = AnchorGenerator(scales=(3.0, 4.0), ratios=(1.0,))
        anchor_based = RetinaNetHead(anchors=anchors, branches=branches(num_anchors=2), loss=loss)
    return FSAFHead(branches=branches(), anchor_based=anchor_based, **(settings | changes))


def predictions_of(geometry, seed=0):
    values = [x.abs() * 0.5 + 0.05 for x in random_outputs(geometry, 4, seed)]
    return FSAFPredictions(references_of(geometry), values, random_outputs(geometry, 3, seed + 1), None)


def naive_levels(head, predictions, geometry, targets):
    """Equations 1 to 3 for one object at a time, with torchvision's focal loss and IoU."""
    chosen = []
    for image, values in enumerate(targets):
        chosen.append([])
        for box, label in zip(values["boxes"], values["labels"], strict=True):
            means = []
            for level, references in enumerate(predictions.references):
                cells = cells_of(geometry)
                own = cells_module.Cells(references, cells.levels[cells.levels == level])
                rows = in_core(own, box[None, None], shrink=head.effective)[0, :, 0].nonzero()[:, 0]
                logits = predictions.logits[level][image, rows]
                wanted = F.one_hot(label, 3).to(logits).expand_as(logits)
                focal = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0, reduction="sum") / len(rows)
                boxes = head.decode(references[rows], predictions.values[level][image, rows])
                means.append(focal - box_iou(boxes, box[None]).clamp(min=1e-6).log().mean())
            chosen[-1].append(int(torch.stack(means).argmin()))
    return chosen


@pytest.mark.parametrize("pairs", [None, 20])
@pytest.mark.parametrize("seed", range(3))
def test_the_selected_level_is_the_one_with_the_least_loss(monkeypatch, seed, pairs):
    if pairs:  # whatever the slices
        monkeypatch.setattr(cells_module, "MAX_PAIRS", pairs * 2 * 5)
    generator = torch.Generator().manual_seed(seed)
    geometry = pyramid(64, num_images=2)
    targets = [random_target(5, generator), random_target(3, generator)]
    predictions = predictions_of(geometry, seed)
    levels = fsaf().select_levels(predictions, truth_of(*targets))
    wanted = naive_levels(fsaf(), predictions, geometry, targets)
    assert [levels[0].tolist(), levels[1, :3].tolist()] == wanted
    assert len({level for image in wanted for level in image}) > 1


def test_distances_are_four_strides_a_unit_and_never_negative():
    decoded = fsaf().decode(torch.tensor([8.0, 8, 16, 16]), torch.tensor([0.5, 0.25, 1.0, -3.0]))
    assert decoded.tolist() == [12 - 16, 12 - 8, 12 + 32, 12]


def seen_best_at(geometry, level, box, label):
    """Predictions that are right about one object on one level and clueless everywhere else."""
    logits = [torch.full((1, h * w, 3), -4.0) for h, w in geometry.shapes]
    values = [torch.full((1, h * w, 4), 0.01) for h, w in geometry.shapes]
    logits[level][..., label] = 4.0
    distances = encode_distances(references_of(geometry)[level], torch.tensor(box))
    values[level][0] = distances / (4 * geometry.strides[level])
    return FSAFPredictions(references_of(geometry), values, logits, None)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_only_the_level_that_sees_the_object_best_learns_it_and_its_neighbours_ignore_it(monkeypatch, level):
    geometry, box = pyramid(64), [0.0, 0.0, 64.0, 64.0]
    head, truth = fsaf(), truth_of(target([box], labels=[1]))
    predictions = seen_best_at(geometry, level, box, 1)
    assert head.select_levels(predictions, truth).tolist() == [[level]]
    caught = []
    monkeypatch.setattr(fsaf_module, "focal_loss", lambda logits, labels, **_: caught.append(labels) or logits[0].sum())
    head.losses(predictions, geometry, truth)
    levels, labels = cells_of(geometry).levels, caught[0][0]
    # Of 64 x 64 pixels .2 holds the cells within 6.4 of (32, 32), .5 those within 16; a cell at the least
    positive = [4, 1, 1]
    ignored = [16 - 4, 4 - 1, 1 - 1]
    for own in range(3):
        found = labels[levels == own]
        if own == level:
            assert ((found == 1).sum(), (found == IGNORED).sum()) == (positive[own], ignored[own])
        elif abs(own - level) == 1:
            assert ((found >= 0).sum(), (found == IGNORED).sum()) == (0, positive[own] + ignored[own])
        else:
            assert (found == BACKGROUND).all()


def test_the_smaller_of_two_objects_on_one_level_wins():
    geometry = pyramid(64, strides=(8,))
    targets = target([[0, 0, 64, 64], [24, 24, 40, 40]], labels=[1, 2])
    head, predictions = fsaf(), predictions_of(geometry)
    value = head.losses(predictions, geometry, truth_of(targets))["box"]
    overlap = (
        -box_iou(head.decode(predictions.references[0], predictions.values[0][0]), targets["boxes"])
        .clamp(min=1e-6)
        .log()
    )
    # The small one's region is one cell, about (36, 36) or a neighbour; the large one's two by two holds it
    regions = in_core(cells_of(geometry), targets["boxes"][None], shrink=0.2)[0]
    small, large = regions[:, 1], regions[:, 0] & ~regions[:, 1]
    wanted = (overlap[small, 1].sum() + overlap[large, 0].sum()) / (small.sum() + large.sum())
    assert torch.allclose(value, wanted)


def test_the_anchor_free_losses_carry_their_weight_and_the_anchor_based_ones_stand_beside_them():
    geometry = pyramid(64)
    features = [torch.randn(1, 4, h, w, generator=torch.Generator().manual_seed(3)) for h, w in geometry.shapes]
    truth = truth_of(target([[3, 5, 30, 20], [20, 22, 61, 58]], labels=[0, 2]))
    head = fsaf(with_anchors=True)
    predictions = head.predict(features, geometry, classify=True)
    full = head.losses(predictions, geometry, truth)
    assert set(full) == {"class", "box", "anchor_class", "anchor_box"}
    head.weight = 0.5
    half = head.losses(head.predict(features, geometry, classify=True), geometry, truth)  # logits were overwritten
    assert torch.allclose(half["class"], full["class"] / 2)
    assert torch.allclose(half["box"], full["box"] / 2)
    alone = head.anchor_based.losses(head.anchor_based.predict(features, geometry, classify=True), geometry, truth)
    assert torch.allclose(half["anchor_class"], alone["class"])
    assert torch.allclose(half["anchor_box"], alone["box"])


def test_as_a_detector_both_branches_give_candidates_in_encodings_of_their_own():
    geometry = pyramid(64)
    features = [torch.randn(1, 4, h, w) for h, w in geometry.shapes]
    head = fsaf(with_anchors=True)
    candidates = head.candidates(features, geometry)
    assert [level.logits.shape[1] for level in candidates] == [64, 16, 4, 128, 32, 8]
    assert [level.decode.__self__ for level in candidates] == [head] * 3 + [head.anchor_based] * 3
    assert len(fsaf().candidates(features, geometry)) == 3


def test_both_branches_share_the_towers():
    model = tiny_detector("retinanet_small", changes={"model.head": FSAFHeadConfig().model_dump()})
    head = model.head
    assert [name for name, _ in head.anchor_based.named_modules() if name.endswith("tower.0")] == []
    sum(loss for name, loss in model(*random_batch()).items() if name.startswith("anchor")).backward()
    assert all(x.grad.any() for x in head.branches.class_tower.parameters())
    assert head.branches.class_predictor.weight.grad is None


def test_a_fresh_head_predicts_small_boxes_and_not_empty_ones():
    geometry = pyramid(64)
    values = fsaf().predict([torch.zeros(1, 4, h, w) for h, w in geometry.shapes], geometry, classify=False).values
    assert all(torch.allclose(x, torch.tensor(0.1)) for x in values)


def test_an_object_off_the_map_is_learned_by_nobody_and_nothing_breaks():
    geometry = pyramid(64)
    losses = fsaf().losses(predictions_of(geometry), geometry, truth_of(target([[100, 100, 120, 120]])))
    assert losses["box"] == 0
    assert math.isfinite(losses["class"])


def test_nothing_to_find_leaves_the_class_loss_alone():
    geometry = pyramid(64, num_images=2)
    losses = fsaf().losses(predictions_of(geometry), geometry, truth_of(target([]), target([])))
    assert losses["class"] > 0
    assert losses["box"] == 0


def test_an_effective_region_larger_than_the_ignored_one_is_refused():
    with pytest.raises(ValueError, match="ignoring"):
        fsaf(effective=0.6, ignoring=0.5)
