"""RoIConv as operators that other runtimes have; what `aligncli::roi_conv` becomes in an exported graph.

Two ways, the same mathematics: torchvision's deformable convolution with the offsets of equation 4, which is ONNX's
DeformConv from opset 19 on, and bilinear sampling of every tap (GridSample) with a matrix product. Both read zero
outside the map, as RoIConv does. Boxes are xyxy pixels, finite. Signatures are the operator's, see ops/operator.py.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from aligncli.ops import roi_offsets, sampling_points

Rows = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor, Tensor | None, Sequence[float], str], Tensor]


class Lowering(StrEnum):
    """How RoIConv is written into a file."""

    deform_conv = "deform_conv"
    grid_sample = "grid_sample"


def rows_by_deform_conv(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
    backend: str,
) -> Tensor:
    """(sum of N R_l, O), for boxes on a grid: R_l is a multiple of the map's cells, as a dense head has it."""
    del backend
    kernel_height, kernel_width = weight.shape[2:]
    rows = []
    for level, level_boxes, stride in zip(features, boxes, strides, strict=True):
        num_images, channels, height, width = level.shape
        grids = level_boxes.reshape(-1, height, width, 4)  # a grid of boxes an image, or several
        repeats = grids.shape[0] // num_images
        maps = level[:, None].expand(-1, repeats, -1, -1, -1).reshape(-1, channels, height, width)
        offsets = roi_offsets(grids, (kernel_height, kernel_width), stride)
        padding = (kernel_height // 2, kernel_width // 2)
        if kernel_height % 2 == 0 or kernel_width % 2 == 0:  # one tap more on the low side, see ops/offsets.py
            after = (kernel_height - 1 - padding[0], kernel_width - 1 - padding[1])
            maps, padding = F.pad(maps, (padding[1], after[1], padding[0], after[0])), (0, 0)
        output = deform_conv2d(maps, offsets, weight, bias, padding=padding)
        rows.append(output.flatten(2).transpose(1, 2).flatten(0, 1))
    return torch.cat(rows)


def rows_by_grid_sample(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
    backend: str,
) -> Tensor:
    """(sum of N R_l, O), for any boxes. It holds all columns of a level at a time: N C R K numbers."""
    del backend
    rows = []
    for level, level_boxes, stride in zip(features, boxes, strides, strict=True):
        y, x = sampling_points(level_boxes, (weight.shape[2], weight.shape[3]), stride)
        y, x = 2 * y / level.shape[2] - 1, 2 * x / level.shape[3] - 1  # -1 and 1 are the borders of the map
        grid = torch.broadcast_tensors(x[..., None, :], y[..., :, None])  # (N, R, kh, kw) each
        columns = F.grid_sample(
            level, torch.stack(grid, dim=-1).flatten(2, 3), mode="bilinear", padding_mode="zeros", align_corners=False
        )  # (N, C, R, K)
        rows.append(F.linear(columns.transpose(1, 2).flatten(2), weight.flatten(1), bias).flatten(0, 1))
    return torch.cat(rows)


def rows_function(lowering: Lowering) -> Rows:
    """The function that writes RoIConv so."""
    match lowering:
        case Lowering.deform_conv:
            return rows_by_deform_conv
        case Lowering.grid_sample:
            return rows_by_grid_sample
