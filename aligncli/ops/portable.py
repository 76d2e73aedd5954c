"""RoIConv with nothing but PyTorch: gather a chunk of columns, multiply, repeat.

A map is read as a table with one channels-last row a cell. A location's columns are K weighted sums of four
rows (`embedding_bag`) and one matrix product turns a chunk of them into outputs, so memory is bounded by the
chunk. Nothing is kept for the backward pass: it gathers again. taps.py knows what a location reads.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aligncli.ops.matmul import Product, add_product_of_transposes
from aligncli.ops.taps import chunks, sum_dtype


def forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
) -> Tensor:
    """Rows of every level, level-major and image-major within: (sum of N R_l, O), in the features' dtype.

    features: (N, C, H, W) and boxes: (N, R_l, 4) a level; weight: (O, C, kh, kw); bias: (O,).
    """
    rows = weight.new_empty(sum(level.shape[0] * level.shape[1] for level in boxes), weight.shape[0])
    product = Product(weight_matrix(weight), bias)
    start = 0
    for level, level_boxes, stride in zip(features, boxes, strides, strict=True):
        table = _table(level)
        for chunk in chunks(level, level_boxes, weight, stride):
            end = start + len(chunk)
            product.write(chunk.gather(table), rows[start:end])
            start = end
    return rows


def backward(
    grad_rows: Tensor,
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    strides: Sequence[float],
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that are needed of (features a level, boxes a level, weight), in that order.

    grad_rows: (sum of N R_l, O). Sums over locations run in float32 for half types; a gradient has its
    input's shape and dtype, and channels-last memory.
    """
    num_levels = len(features)
    grad_rows = grad_rows.contiguous()  # the gradient of a sum is one number, expanded
    matrix = weight_matrix(weight)
    product = Product(matrix.T)
    grad_matrix = matrix.new_zeros(matrix.shape, dtype=sum_dtype(weight)) if needs[-1] else None
    grad_features, grad_boxes = [], []
    start = 0
    for level, need_features, need_boxes in zip(range(num_levels), needs, needs[num_levels:]):
        table = _table(features[level])
        grad_table = table.new_zeros(table.shape, dtype=sum_dtype(weight)) if need_features else None
        grad_corners = [boxes[level].new_empty(0, 4)]
        for chunk in chunks(features[level], boxes[level], weight, strides[level]):
            end = start + len(chunk)
            grad = grad_rows[start:end]
            start = end
            if grad_matrix is not None:
                add_product_of_transposes(grad_matrix, grad, chunk.gather(table))
            if not (need_features or need_boxes):
                continue
            grad_taps = product(grad).view(-1, table.shape[1]).to(sum_dtype(weight))  # (r K, C)
            if grad_table is not None:
                chunk.scatter(grad_taps, grad_table)
            if need_boxes:
                grad_corners.append(chunk.grad_boxes(grad_taps, table))
        if grad_table is not None:
            grad_features.append(_map(grad_table, like=features[level]))
        if need_boxes:
            grad_boxes.append(torch.cat(grad_corners).view(boxes[level].shape).to(boxes[level].dtype))
    gradients = grad_features + grad_boxes
    if grad_matrix is not None:
        gradients.append(weight_of_matrix(grad_matrix, like=weight))
    return gradients


def _table(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C); a view when the memory is channels-last."""
    # Detached: embedding_bag would prepare for its own backward.
    return features.detach().permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _map(table: Tensor, *, like: Tensor) -> Tensor:
    num_images, channels, height, width = like.shape
    return table.to(like.dtype).view(num_images, height, width, channels).permute(0, 3, 1, 2)


def weight_matrix(weight: Tensor) -> Tensor:
    """(O, C, kh, kw) -> (O, K C), taps outside as in the columns."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def weight_of_matrix(matrix: Tensor, *, like: Tensor) -> Tensor:
    """The other way, in the dtype of `like` (O, C, kh, kw); channels-last, no copy."""
    out_channels, channels, kernel_height, kernel_width = like.shape
    taps_last = matrix.to(like.dtype).view(out_channels, kernel_height, kernel_width, channels)
    return taps_last.permute(0, 3, 1, 2)
