"""Which anchor learns which ground truth, for a whole batch at once.

Memory is bounded: IoUs are computed for a slice of the anchors at a time, so a thousand ground truths
an image do not blow up. Boxes are xyxy pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aligncli.boxes import box_areas, pairwise_intersection
from aligncli.errors import RecipeError

BACKGROUND = -1
IGNORED = -2

# 4 M IoUs a slice: 16 MB an intermediate tensor, large enough to hide the loop on every device.
MAX_IOUS = 1 << 22
# By how much of the best IoU a tied one may fall short: the same anchor elsewhere has other roundings.
TIE = 1e-5
# Anchors with more than this share of themselves inside a crowd region are nobody's negatives.
CROWD_COVER = 0.5


@dataclass(frozen=True)
class GroundTruth:
    """The targets of a batch, padded to the image with most objects.

    boxes (N, G, 4), labels (N, G), objects (N, G) bool: a real object; crowds (N, G) bool or None when
    the batch holds none. Padding, and boxes without area, are in neither mask; their boxes have unit sides, so
    encodings stay finite.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    crowds: Tensor | None


@dataclass(frozen=True)
class Matches:
    """labels (N, R): class 0..K-1, BACKGROUND or IGNORED. boxes (N, R, 4): where positive, the box to learn."""

    labels: Tensor
    boxes: Tensor

    @property
    def positive(self) -> Tensor:
        """(N, R) bool."""
        return self.labels >= 0

    def ignoring(self, rows: Tensor) -> Matches:
        """The same, with these rows (N, R) bool ignored."""
        return Matches(self.labels.masked_fill(rows, IGNORED), self.boxes)


def pad_targets(targets: Sequence[Mapping[str, Any]], device: torch.device) -> GroundTruth:
    """Stack targets with "boxes" (G, 4), "labels" (G,) and, optionally, "crowd" (G,) bool."""
    boxes = pad_sequence([target["boxes"] for target in targets], batch_first=True).float()
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
    counts = torch.tensor([len(target["boxes"]) for target in targets], device=boxes.device)
    real = torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
    real &= (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)  # in float32, a flip may leave a sliver without a side
    crowds = None
    if any("crowd" in target and bool(target["crowd"].any()) for target in targets):
        flags = [target.get("crowd", torch.zeros_like(target["labels"], dtype=torch.bool)) for target in targets]
        crowds = pad_sequence(flags, batch_first=True) & real
    boxes[~real] = boxes.new_tensor((0.0, 0.0, 1.0, 1.0))
    objects = real if crowds is None else real & ~crowds
    return GroundTruth(
        boxes.to(device, non_blocking=True),
        labels.to(device, non_blocking=True),
        objects.to(device, non_blocking=True),
        None if crowds is None else crowds.to(device, non_blocking=True),
    )


class Matcher:
    """Max-IoU assignment (RetinaNet's; thresholds per head are Table 5).

    Args:
        foreground: IoU from which an anchor is positive for its best ground truth.
        background: IoU below which it is negative; between the two it is ignored.
        low_quality: also make each ground truth's best anchor positive, whatever its IoU (if above zero), and all
            that are as good: of an object that several anchors contain, or that contains several, none is better.
            As in torchvision and detectron2, such an anchor learns its own best ground truth.
    """

    def __init__(self, *, foreground: float, background: float, low_quality: bool) -> None:
        if background > foreground:
            raise RecipeError(
                f"matcher.background is {background}, above matcher.foreground {foreground}: "
                "the background threshold must not exceed the foreground threshold"
            )
        self.foreground = foreground
        self.background = background
        self.low_quality = low_quality

    @torch.no_grad()
    def __call__(self, anchors: Tensor, truth: GroundTruth, *, num_shapes: int = 1) -> Matches:
        """Match anchors (R, 4), shared by all images, or (N, R, 4), one set an image.

        With `num_shapes`, an anchor of variable shape is given by so many rows, R * num_shapes in all, and its
        IoU is the best of theirs.
        """
        num_images, num_truths = truth.labels.shape
        num_anchors = anchors.shape[-2] // num_shapes
        if num_truths == 0:
            labels = torch.full((num_images, num_anchors), BACKGROUND, device=anchors.device)
            return Matches(labels, anchors[..., ::num_shapes, :].expand(num_images, -1, -1))
        rows = max(1, MAX_IOUS // (num_images * num_truths * num_shapes)) * num_shapes
        parts = anchors.split(rows, dim=-2)
        slices = [_match_slice(part, truth, num_shapes, keep=len(parts) == 1) for part in parts]
        best_iou = torch.cat([part.best_iou for part in slices], dim=1)
        best_truth = torch.cat([part.best_truth for part in slices], dim=1)
        labels = truth.labels.gather(1, best_truth)
        positive = best_iou >= self.foreground
        if self.low_quality:
            peaks = torch.stack([part.truth_iou for part in slices]).amax(dim=0)
            pieces = zip(slices, parts, strict=True)
            best = [_is_best(piece.iou, part, truth, peaks, num_shapes) for piece, part in pieces]
            positive |= torch.cat(best, dim=1)
        ignored = best_iou >= self.background
        if truth.crowds is not None:
            ignored |= torch.cat([part.crowd_cover for part in slices], dim=1) > CROWD_COVER
        labels = torch.where(positive, labels, torch.where(ignored, IGNORED, BACKGROUND))
        boxes = truth.boxes.gather(1, best_truth[..., None].expand(-1, -1, 4))
        return Matches(labels, boxes)


@dataclass(frozen=True)
class _Slice:
    best_iou: Tensor  # (N, r) over ground truths
    best_truth: Tensor  # (N, r)
    truth_iou: Tensor  # (N, G) over the anchors of this slice
    crowd_cover: Tensor  # (N, r) share of the anchor inside a crowd region
    iou: Tensor | None  # (N, r, G) of the only slice; of many it would be what slices are there to avoid


def _match_slice(anchors: Tensor, truth: GroundTruth, num_shapes: int, *, keep: bool) -> _Slice:
    intersection = pairwise_intersection(anchors, truth.boxes)  # (N, r, G)
    crowd_cover = intersection.new_zeros(())
    if truth.crowds is not None:
        cover = intersection / box_areas(anchors)[..., :, None].clamp(min=1e-9)
        crowd_cover = cover.masked_fill(~truth.crowds[:, None], 0.0).amax(dim=-1)
        crowd_cover = crowd_cover.view(len(cover), -1, num_shapes).amin(dim=2)
    iou = _ious(anchors, truth, intersection, num_shapes)
    return _Slice(*iou.max(dim=2), iou.amax(dim=1), crowd_cover, iou if keep else None)


def _is_best(iou: Tensor | None, anchors: Tensor, truth: GroundTruth, peaks: Tensor, num_shapes: int) -> Tensor:
    """(N, r) bool: is no anchor better for some ground truth, whose best IoU is in `peaks` (N, G), above zero?

    IoUs that were not kept are computed anew.
    """
    if iou is None:
        iou = _ious(anchors, truth, pairwise_intersection(anchors, truth.boxes), num_shapes)
    touched = torch.where(peaks > 0, peaks * (1 - TIE), torch.inf)
    return (iou >= touched[:, None]).any(dim=2)


def _ious(anchors: Tensor, truth: GroundTruth, intersection: Tensor, num_shapes: int) -> Tensor:
    """(N, r, G); -1, below every threshold, for padding and crowds."""
    union = box_areas(anchors)[..., :, None] + box_areas(truth.boxes)[:, None, :] - intersection
    iou = intersection / union
    iou = torch.where(truth.objects[:, None] & (iou >= 0), iou, -1.0)  # a box that is not a number touches nothing
    return iou.view(len(iou), -1, num_shapes, iou.shape[2]).amax(dim=2) if num_shapes > 1 else iou
