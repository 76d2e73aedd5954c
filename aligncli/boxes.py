"""Box arithmetic, and the frame that all of aligncli uses.

A box is xyxy, float, in pixels of the network input, half-open: its width is x2 - x1 (no legacy "+1").
Cell (X, Y) of a map with stride S covers the pixels [X S, (X+1) S) x [Y S, (Y+1) S).
Deltas are (dx, dy, dw, dh) relative to a reference box, as in R-CNN, divided by `stds`.
"""

import math

import torch
from torch import Tensor

# Faster R-CNN's clamp: one step may not grow a 16 px side beyond 1000 px; keeps exp() finite.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def encode_boxes(references: Tensor, boxes: Tensor, stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Deltas that turn `references` into `boxes`, both (..., 4) with positive sides; returns (..., 4)."""
    reference_centers, reference_sides = _centers_and_sides(references)
    centers, sides = _centers_and_sides(boxes)
    shift = (centers - reference_centers) / reference_sides
    scale = torch.log(sides / reference_sides)
    return torch.cat((shift, scale), dim=-1) / shift.new_tensor(stds)


def decode_boxes(references: Tensor, deltas: Tensor, stds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Inverse of `encode_boxes`, with dw and dh clamped at log(1000/16); returns (..., 4)."""
    reference_centers, reference_sides = _centers_and_sides(references)
    shift, scale = (deltas * deltas.new_tensor(stds)).split(2, dim=-1)
    centers = reference_centers + shift * reference_sides
    half_sides = 0.5 * reference_sides * scale.clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat((centers - half_sides, centers + half_sides), dim=-1)


def clip_boxes(boxes: Tensor, sizes: Tensor, *, min_side: float = 0.0) -> Tensor:
    """Clip boxes (N, R, 4) to their images, sizes (N, 2) as (height, width) in pixels.

    With `min_side` the result is at least that wide and high and still inside the image
    (an image smaller than `min_side` wins). Non-finite coordinates become the image's edges.
    """
    limits = sizes.flip(-1).to(boxes)[:, None]  # (N, 1, 2) as (width, height)
    low, high = boxes.split(2, dim=-1)
    low = torch.nan_to_num(low, nan=0.0).clamp(min=0.0).minimum((limits - min_side).clamp(min=0.0))
    high = torch.nan_to_num(high, nan=math.inf).maximum(low + min_side).minimum(limits)
    return torch.cat((low, high), dim=-1)


def box_areas(boxes: Tensor) -> Tensor:
    """Areas (...) in square pixels of boxes (..., 4)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return sides[..., 0] * sides[..., 1]


def pairwise_intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection areas (..., R, G) of boxes (..., R, 4) and (..., G, 4); leading sizes broadcast."""
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    sides = (high - low).clamp_(min=0.0)
    return sides[..., 0] * sides[..., 1]


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes.split(2, dim=-1)
    return 0.5 * (low + high), high - low


def to_float64(values: Tensor) -> Tensor:
    """The values in float64: on their device, or on the CPU where the device knows no float64 (Apple's GPUs)."""
    return (values.cpu() if values.device.type == "mps" else values).double()
