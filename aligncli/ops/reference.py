"""RoIConv as plain, slow, differentiable PyTorch: the specification that every backend is held against.

Eq. 2 gives the points; each is read bilinearly, outside the map is zero (as `deform_conv2d`; RoIAlign clamps
instead), and the taps are multiplied and summed one after the other in float64. Gradients, to boxes too,
are autograd's. At a point exactly on a cell centre the slope is that of the cells to its right and below.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from aligncli.ops.offsets import sampling_points


def forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
) -> Tensor:
    """Rows of every level, level-major, image-major within: (sum of N R_l, O), in the features' dtype.

    features: (N, C, H, W) and boxes: (N, R_l, 4) a level; weight: (O, C, kh, kw); bias: (O,).
    """
    outputs = [
        _one_level(level, level_boxes, weight.double(), stride).flatten(0, 1)
        for level, level_boxes, stride in zip(features, boxes, strides, strict=True)
    ]
    rows = torch.cat(outputs)
    if bias is not None:
        rows = rows + bias.double()
    return rows.to(features[0].dtype)


def _one_level(features: Tensor, boxes: Tensor, weight: Tensor, stride: float) -> Tensor:
    """(N, R, O) in float64, without bias."""
    out_channels, _, kernel_height, kernel_width = weight.shape
    num_images, num_rois, _ = boxes.shape
    # The points themselves are specified in float32, so that boxes of any size mean the same everywhere.
    boxes = boxes.to(torch.float64 if features.dtype == torch.float64 else torch.float32)
    y, x = sampling_points(boxes, (kernel_height, kernel_width), stride)  # (N, R, kh) and (N, R, kw)
    y, x = y.double() - 0.5, x.double() - 0.5
    output = features.new_zeros(num_images, num_rois, out_channels, dtype=torch.float64)
    for i, j in product(range(kernel_height), range(kernel_width)):
        output = output + _sample(features.double(), y[..., i], x[..., j]) @ weight[:, :, i, j].T
    return output


def _sample(features: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear values (N, R, C) of features (N, C, H, W) at array positions y, x (N, R)."""
    num_images, _, height, width = features.shape
    image = torch.arange(num_images, device=features.device)[:, None].expand_as(y)
    values = []
    for row_step, column_step in product((0, 1), (0, 1)):
        row, row_weight = _corner(y, row_step, height)
        column, column_weight = _corner(x, column_step, width)
        cell = features[image, :, row, column]  # (N, R, C)
        values.append((row_weight * column_weight)[..., None] * cell)
    return torch.stack(values).sum(0)


def _corner(position: Tensor, step: int, size: int) -> tuple[Tensor, Tensor]:
    """The cell `step` after floor(position) along one axis, and its weight; weight 0 where there is none."""
    cell = position.floor() + step
    inside = (cell >= 0) & (cell < size)  # False for NaN, so it contributes nothing
    weight = 1 + cell - position if step == 0 else 1 - cell + position
    return torch.where(inside, cell, 0.0).long(), torch.where(inside, weight, 0.0)
