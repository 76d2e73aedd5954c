"""Focal loss on integer labels; smooth L1 and IoU loss for boxes.

`focal_loss` and `box_loss` are sums over a batch, to be divided by a normaliser; the others are not summed.
Logits are (N, R, K), labels (N, R) as in matching.py.
The focal loss keeps its gradient for backward and nothing else: torchvision's one-hot formulation saves eight
tensors of the logits' size.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from aligncli.boxes import box_areas, encode_boxes
from aligncli.matching import IGNORED, Matches

# Logits of the focal loss at a time on the CPU, half a MB: what is computed of them stays in the cache, and the largest
# tensors in a training step are not made several times over. A GPU takes all at once.
CHUNK = 1 << 17
MIN_IOU = 1e-6  # and smallest union in square pixels: keeps the logarithm and its gradient finite


def focal_loss(
    logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    overwrite: bool = False,
) -> Tensor:
    """Sum of the sigmoid focal loss (Lin et al. 2017, equation 5) over all rows that are not ignored.

    Args:
        logits: (..., R, K) scores before the sigmoid, or one such tensor a level, whose R add up: the largest tensors
            of a step where there are many classes need not be joined. Computed in float32, or float64 if they are.
        labels: (..., R) int64: the class 0..K-1, BACKGROUND, or IGNORED (no loss, no gradient).
        overwrite: the gradient may take the place of the logits, which are worthless afterwards. For logits that are
            not read again, a convolution's output for one; autograd says so where its backward pass needs them.

    Returns a scalar of the dtype that it is computed in.
    """
    levels = [logits] if isinstance(logits, Tensor) else list(logits)
    parts = labels.split([level.shape[-2] for level in levels], dim=-1)
    losses = []
    for level, own_labels in zip(levels, parts, strict=True):
        rows = level.flatten(0, -2).to(torch.promote_types(level.dtype, torch.float32))
        loss = _FocalLoss.apply(rows, own_labels.flatten(), alpha, gamma, overwrite and not level.is_leaf)
        assert isinstance(loss, Tensor)
        losses.append(loss)
    return torch.stack(losses).sum()


def box_loss(deltas: Tensor, references: Tensor, matches: Matches, *, beta: float, stds: tuple[float, ...]) -> Tensor:
    """Sum over positives and coordinates of smooth L1 between predicted and encoded deltas.

    Args:
        deltas: (N, R, 4) predictions. references: (R, 4) or (N, R, 4), what the deltas are relative to.
        matches: of the same references. beta: where L1 turns quadratic, in units of deltas.
    """
    deltas = deltas.float()
    wanted = encode_boxes(references, matches.boxes, stds)
    # Before the loss: of a reference without area nothing finite is wanted, and its zero share would have no gradient
    wanted = torch.where(matches.positive[..., None], wanted, deltas.detach())
    distance = F.smooth_l1_loss(deltas, wanted, beta=beta, reduction="none").sum(dim=-1)
    return torch.where(matches.positive, distance, 0.0).sum()


def pairwise_focal_loss(logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """`focal_loss` of every row for every one of G labels, not summed: what it would be if that were its label.

    Logits (N, R, K) and labels (N, G), all 0..K-1; returns float32 (N, R, G).
    """
    logits = logits.float()
    negative = (1 - alpha) * _value(logits, gamma)
    correction = alpha * _value(-logits, gamma) - negative
    chosen = labels[:, None].expand(-1, logits.shape[1], -1)
    return negative.sum(dim=-1, keepdim=True) + correction.gather(2, chosen)


def iou_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """-ln IoU (Yu et al. 2016, UnitBox) of boxes (..., 4) with `wanted` (..., 4), row by row; float32 (...).

    Sides are not negative. Boxes that hardly touch cost at most -ln(MIN_IOU) and get no gradient.
    """
    boxes, wanted = boxes.float(), wanted.float()
    low = torch.maximum(boxes[..., :2], wanted[..., :2])
    high = torch.minimum(boxes[..., 2:], wanted[..., 2:])
    sides = (high - low).clamp(min=0.0)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_areas(boxes) + box_areas(wanted) - intersection
    return -(intersection / union.clamp(min=MIN_IOU)).clamp(min=MIN_IOU).log()


def loss_normalizer(matches: Matches, rule: str) -> Tensor:
    """Float32 scalar to divide by: "positives" is max(1, positives), "positives_plus_one" the authors' rule.

    With several processes the positives are those of all, see `count_normalizer`.
    """
    positives = matches.positive.sum()
    return count_normalizer(positives, added=1.0) if rule == "positives_plus_one" else count_normalizer(positives)


def count_normalizer(count: Tensor, *, added: float = 0.0, least: float = 1.0) -> Tensor:
    """Float32 scalar to divide a sum by, of a count (or weight) of what was summed: max(least, count + added).

    Where several processes train one model, each with its part of the batch, the count is that of all of them,
    divided by their number: gradients are averaged over processes, so the mean of the parts' losses is the loss of
    the whole batch. Every process must then call this as often as the others.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return (count.float() + added).clamp(min=least)
    total = count.detach().float().clone()
    dist.all_reduce(total)
    return (total + added).clamp(min=least) / dist.get_world_size()


class _FocalLoss(torch.autograd.Function):
    """Every class of every row as a negative, then the positives' own class corrected.

    The gradient is made with the loss, as both need the same logarithms and powers. No boolean indexing: its result
    size would make the host wait for the device at every step.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, alpha: float, gamma: float, overwrite: bool) -> Tensor:
        gradient = None
        if ctx.needs_input_grad[0]:
            gradient = logits.detach() if overwrite else torch.empty_like(logits)
        num_rows, num_classes = logits.shape
        step = max(1, CHUNK // num_classes if logits.device.type == "cpu" else num_rows)
        totals = [
            _focal_rows(logits[rows], labels[rows], alpha, gamma, None if gradient is None else gradient[rows])
            for rows in (slice(first, first + step) for first in range(0, num_rows, step))
        ]
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.cat(totals).sum() if totals else logits.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None, None


def _focal_rows(logits: Tensor, labels: Tensor, alpha: float, gamma: float, gradient: Tensor | None) -> Tensor:
    """Losses (r,) of logits (r, K) and labels (r,); the derivatives are written to `gradient` (r, K), also in place."""
    value, slope = _value_and_slope(logits, gamma)
    own = labels.clamp(min=0)[:, None]
    own_value, own_slope = _value_and_slope(-logits.gather(1, own), gamma)  # of the class as a positive
    correction = alpha * own_value - (1 - alpha) * value.gather(1, own)
    if gradient is not None:
        torch.mul(slope, 1 - alpha, out=gradient)
        gradient.masked_fill_((labels == IGNORED)[:, None], 0.0)
        gradient.scatter_(1, own, torch.where(labels[:, None] >= 0, -alpha * own_slope, gradient.gather(1, own)))
    loss = torch.where(labels != IGNORED, (1 - alpha) * value.sum(dim=-1), 0.0)
    return loss + torch.where(labels >= 0, correction[:, 0], 0.0)


def _value(logits: Tensor, gamma: float) -> Tensor:
    """The loss of a negative without alpha: sigmoid(x)**gamma * softplus(x)."""
    return logits.sigmoid().pow(gamma) * F.softplus(logits)


def _value_and_slope(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`_value` and its derivative."""
    probability = logits.sigmoid()
    power = probability.pow(gamma)
    value = power * F.softplus(logits)
    return value, (gamma * (1 - probability)).mul_(value).addcmul_(power, probability)
