"""RoIConv on the CPU with our own kernels (aligncli_ext), which compute the taps of a box themselves.

Nothing is kept for the backward pass: it samples again. Results repeat bit by bit. There are two ways to the matrix
products: native_tiles.py multiplies where it samples, native_columns.py leaves chunks of columns to PyTorch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aligncli.ops import native_columns, native_tiles
from aligncli.ops.native_parts import lay_out
from aligncli.ops.taps import sum_dtype


def forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
) -> Tensor:
    """Rows of every level, level-major and image-major within: (sum of N R_l, O), in the features' dtype.

    features: (N, C, H, W) and boxes: (N, R_l, 4) a level; weight: (O, C, kh, kw); bias: (O,). Float32, float64 or
    bfloat16, on the CPU.
    """
    levels = lay_out(features, boxes, strides)
    way = native_tiles if native_tiles.tiles_serve(weight) else native_columns
    return way.forward(levels, weight, bias)


def backward(
    grad_rows: Tensor,
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    strides: Sequence[float],
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that are needed of (features a level, boxes a level, weight), in that order.

    grad_rows: (sum of N R_l, O). Sums over locations run in float32 for bfloat16; a gradient has its input's shape
    and dtype, and channels-last memory.
    """
    num_levels = len(features)
    levels = lay_out(features, boxes, strides)
    grad_rows = grad_rows.contiguous()  # the gradient of a sum is one number, expanded
    grad_weight = _zeros_like_kernel(weight) if needs[-1] else None
    grad_maps = [
        torch.zeros_like(level.map, dtype=sum_dtype(weight)) if needed else None
        for level, needed in zip(levels, needs[:num_levels])
    ]
    grad_boxes = [
        torch.zeros_like(level.boxes) if needed else None for level, needed in zip(levels, needs[num_levels:-1])
    ]
    has_tiles = native_tiles.tiles_serve(weight)
    if grad_weight is not None:
        (native_tiles if has_tiles else native_columns).add_weight_gradient(grad_rows, levels, grad_weight)
    if has_tiles and not any(needs[num_levels:-1]):  # a box's gradient is a sum over all channels
        native_tiles.add_map_gradients(grad_rows, levels, weight, grad_maps)
    elif any(needs[:-1]):
        native_columns.add_sampled_gradients(grad_rows, levels, weight, grad_maps, grad_boxes)
    gradients = [
        *(grad.permute(0, 3, 1, 2).to(weight.dtype) for grad in grad_maps if grad is not None),
        *(grad.to(level.dtype) for grad, level in zip(grad_boxes, boxes) if grad is not None),
    ]
    if grad_weight is not None:
        gradients.append(grad_weight.to(weight.dtype))
    return gradients


def _zeros_like_kernel(weight: Tensor) -> Tensor:
    """Channels-last, even where the kernel has one tap and the layout is ambiguous: its matrices are views."""
    out_channels, channels, kernel_height, kernel_width = weight.shape
    zeros = weight.new_zeros(out_channels, kernel_height, kernel_width, channels, dtype=sum_dtype(weight))
    return zeros.permute(0, 3, 1, 2)
