"""Max-IoU assignment of a batch: thresholds, low-quality matches, ties, crowds, padding, bounded slices."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection._utils import Matcher as TorchvisionMatcher
from torchvision.ops import box_iou

from aligncli import matching
from aligncli.anchors import AnchorGenerator
from aligncli.matching import BACKGROUND, IGNORED, Matcher, pad_targets

CPU = torch.device("cpu")


def random_boxes(count, generator, limit=100.0):
    low = torch.rand(count, 2, generator=generator) * limit
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=generator) * limit / 2], dim=1)


def target(boxes, labels=None, crowd=None):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.arange(len(boxes)) if labels is None else torch.tensor(labels)
    values = {"boxes": boxes, "labels": labels}
    return values if crowd is None else values | {"crowd": torch.tensor(crowd)}


def test_thresholds_make_positives_ignored_and_background():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 14], [0, 0, 10, 21], [50, 50, 60, 60]])
    truth = pad_targets([target([[0, 0, 10, 10]], labels=[3])], CPU)
    matches = Matcher(foreground=0.7, background=0.5, low_quality=False)(anchors, truth)
    assert matches.labels.tolist() == [[3, 3, BACKGROUND, BACKGROUND]]  # IoU 1, .714, .476, 0
    loose = Matcher(foreground=0.9, background=0.4, low_quality=False)(anchors, truth)
    assert loose.labels.tolist() == [[3, IGNORED, IGNORED, BACKGROUND]]


def test_each_ground_truth_s_best_anchor_is_positive_whatever_its_iou():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 4, 4]])
    truth = pad_targets([target([[0, 0, 30, 30]], labels=[1])], CPU)
    assert Matcher(foreground=0.5, background=0.4, low_quality=True)(anchors, truth).labels.tolist() == [[1, -1]]
    assert not Matcher(foreground=0.5, background=0.4, low_quality=False)(anchors, truth).positive.any()


def test_a_ground_truth_that_no_anchor_touches_makes_no_positive():
    truth = pad_targets([target([[100, 100, 110, 110]])], CPU)
    matches = Matcher(foreground=0.5, background=0.4, low_quality=True)(torch.tensor([[0.0, 0, 10, 10]]), truth)
    assert matches.labels.tolist() == [[BACKGROUND]]


def test_anchors_that_are_as_good_as_the_best_are_positive_too():
    """Nine anchors contain the object, which lies in the middle of them: none is better than another."""
    corners = 8.0 * torch.cartesian_prod(torch.arange(12), torch.arange(12))
    anchors = torch.cat([corners, corners + 32.0], dim=1)
    truth = pad_targets([target([[44, 44, 52, 52]], labels=[1])], CPU)
    positive = Matcher(foreground=0.4, background=0.3, low_quality=True)(anchors, truth).positive[0]
    assert positive.sum() == 9
    middle = (anchors[positive, :2] + anchors[positive, 2:]).mean(dim=0) / 2
    assert middle.tolist() == [44 + 4, 44 + 4]


def test_roundings_do_not_decide_between_tied_anchors():
    """RetinaNet's anchors have irrational sides, of which each place keeps other bits."""
    anchors = AnchorGenerator(scales=(4 * 2 ** (1 / 3),), ratios=(1.0,)).for_levels([(40, 40)], [8], device=CPU)[0]
    truth = pad_targets([target([[150, 150, 156, 156]], labels=[1])], CPU)
    positive = Matcher(foreground=0.5, background=0.4, low_quality=True)(anchors, truth).positive[0]
    inside = ((anchors[:, :2] <= 150) & (anchors[:, 2:] >= 156)).all(dim=1)
    assert torch.equal(positive, inside)
    assert inside.sum() > 9


def test_an_anchor_that_is_not_a_number_is_nobody_s_and_takes_nothing_from_others():
    anchors = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50], [float("nan")] * 4])
    truth = pad_targets([target([[0, 0, 30, 30]], labels=[1])], CPU)
    matches = Matcher(foreground=0.9, background=0.4, low_quality=True)(anchors, truth)
    assert matches.labels.tolist() == [[1, BACKGROUND, BACKGROUND]]


@pytest.mark.parametrize("whole_numbers", [False, True])
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_torchvision_s_matcher_image_by_image(low_quality, seed, whole_numbers):
    """Whole numbers make ties, of which several anchors are the best."""
    generator = torch.Generator().manual_seed(seed)
    anchors = random_boxes(500, generator)
    boxes = [random_boxes(count, generator) for count in (7, 0, 3)]
    if whole_numbers:
        anchors, *boxes = (_on_a_grid(x) for x in (anchors, *boxes))
    matches = Matcher(foreground=0.5, background=0.4, low_quality=low_quality)(
        anchors, pad_targets([target(x) for x in boxes], CPU)
    )
    reference = TorchvisionMatcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    for image, truth in enumerate(boxes):
        if len(truth) == 0:
            assert (matches.labels[image] == BACKGROUND).all()
            continue
        wanted = reference(box_iou(truth, anchors))  # -1 background, -2 between: our own codes
        assert torch.equal(matches.labels[image], wanted)
        positive = wanted >= 0
        assert torch.equal(matches.boxes[image][positive], truth[wanted[positive]])


def _on_a_grid(boxes: torch.Tensor) -> torch.Tensor:
    """Corners that are multiples of four, and no box without area."""
    low = (boxes[:, :2] / 4).floor() * 4
    return torch.cat([low, low + ((boxes[:, 2:] - boxes[:, :2]) / 8).floor().clamp(min=1) * 8], dim=1)


@pytest.mark.parametrize("per_image", [False, True])
def test_slicing_the_anchors_changes_nothing(monkeypatch, per_image):
    generator = torch.Generator().manual_seed(1)
    anchors = random_boxes(401, generator)
    if per_image:
        anchors = torch.stack([anchors, random_boxes(401, generator)])
    truth = pad_targets(
        [target(random_boxes(9, generator), crowd=[False] * 8 + [True]), target(random_boxes(4, generator))], CPU
    )
    matcher = Matcher(foreground=0.5, background=0.4, low_quality=True)
    whole = matcher(anchors, truth)
    monkeypatch.setattr(matching, "MAX_IOUS", 50 * 2 * 9)
    sliced = matcher(anchors, truth)
    assert torch.equal(whole.labels, sliced.labels)
    assert torch.equal(whole.boxes, sliced.boxes)


class LargestTensor(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operator returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        for value in returned if isinstance(returned, tuple | list) else (returned,):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return returned


def test_a_thousand_ground_truths_an_image_take_no_more_memory_than_a_slice(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    anchors = random_boxes(600, generator)
    truth = pad_targets([target(random_boxes(1000, generator)) for _ in range(2)], CPU)
    monkeypatch.setattr(matching, "MAX_IOUS", 40_000)
    with LargestTensor() as largest:
        Matcher(foreground=0.5, background=0.4, low_quality=True)(anchors, truth)
    assert largest.elements <= 2 * matching.MAX_IOUS  # both coordinates of the corners; all pairs are 1.2 M


def test_anchors_inside_a_crowd_region_are_ignored_and_never_positive():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 100, 100], [200, 200, 210, 210]])
    truth = pad_targets([target([[0, 0, 100, 100]], crowd=[True])], CPU)
    matches = Matcher(foreground=0.5, background=0.4, low_quality=True)(anchors, truth)
    assert matches.labels.tolist() == [[IGNORED, IGNORED, BACKGROUND]]


def test_an_object_wins_over_the_crowd_around_it():
    truth = pad_targets([target([[0, 0, 10, 10], [0, 0, 100, 100]], labels=[4, 5], crowd=[False, True])], CPU)
    matches = Matcher(foreground=0.5, background=0.4, low_quality=False)(torch.tensor([[0.0, 0, 10, 10]]), truth)
    assert matches.labels.tolist() == [[4]]


def test_a_batch_without_any_object_is_all_background():
    truth = pad_targets([target([]), target([])], CPU)
    matches = Matcher(foreground=0.5, background=0.4, low_quality=True)(torch.rand(6, 4).cumsum(1), truth)
    assert (matches.labels == BACKGROUND).all()
    assert matches.labels.shape == (2, 6)


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="background"):
        Matcher(foreground=0.4, background=0.5, low_quality=True)


def test_an_anchor_of_variable_shape_has_the_best_iou_of_its_sampled_shapes(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    sampled, boxes = random_boxes(60 * 3, generator), random_boxes(5, generator)
    crowd = [False, False, True, False, False]
    truth = pad_targets([target(boxes, crowd=crowd), target(boxes[:2])], CPU)
    matcher = Matcher(foreground=0.5, background=0.3, low_quality=True)
    found = matcher(sampled, truth, num_shapes=3)
    iou = box_iou(sampled, boxes).view(60, 3, 5).amax(1)
    iou[:, 2] = -1
    best = iou.max(1)
    assert found.labels.shape == (2, 60)
    positive = best.values >= 0.5
    for number in (0, 1, 3, 4):
        positive[iou[:, number].argmax()] = True
    assert torch.equal(found.positive[0], positive)
    assert torch.equal(found.boxes[0][positive], boxes[best.indices][positive])
    monkeypatch.setattr(matching, "MAX_IOUS", 200)
    sliced = matcher(sampled, truth, num_shapes=3)
    assert torch.equal(sliced.labels, found.labels)
    assert torch.equal(sliced.boxes, found.boxes)


def test_an_anchor_of_variable_shape_is_in_a_crowd_where_all_of_its_sampled_shapes_are():
    inside, half_out, outside = [10.0, 10, 20, 20], [15.0, 10, 40, 20], [50.0, 50, 60, 60]
    shapes = torch.tensor([inside, inside, inside, half_out, outside, inside, half_out, outside])
    truth = pad_targets([target([[0, 0, 22, 22]], crowd=[True])], CPU)
    matcher = Matcher(foreground=0.5, background=0.4, low_quality=True)
    assert matcher(shapes, truth, num_shapes=2).labels.tolist() == [[IGNORED, BACKGROUND, BACKGROUND, BACKGROUND]]


def test_matches_without_some_rows_ignore_them_and_leave_the_others():
    matches = matching.Matches(torch.tensor([[3, BACKGROUND, IGNORED, 1]]), torch.rand(1, 4, 4))
    less = matches.ignoring(torch.tensor([[True, True, True, False]]))
    assert less.labels.tolist() == [[IGNORED, IGNORED, IGNORED, 1]]
    assert torch.equal(less.boxes, matches.boxes)


def test_a_box_without_area_is_no_object():
    """A sliver may lose its side to float32 in a flip; its deltas would be infinite."""
    truth = pad_targets([target([[5, 5, 5, 30], [0, 0, 10, 10]], labels=[2, 3], crowd=[False, False])], CPU)
    assert truth.objects.tolist() == [[False, True]]
    matches = Matcher(foreground=0.5, background=0.4, low_quality=True)(
        torch.tensor([[4.0, 4, 6, 31], [0, 0, 9, 10]]), truth
    )
    assert matches.labels.tolist() == [[BACKGROUND, 3]]
    crowds = pad_targets([target([[5, 5, 5, 30], [0, 0, 10, 10]], labels=[2, 3], crowd=[True, True])], CPU).crowds
    assert crowds is not None
    assert crowds.tolist() == [[False, True]]
