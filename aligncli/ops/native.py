"""RoIConv on the CPU with our own kernels: gather a chunk of columns, multiply, repeat.

The kernels (aligncli_ext) read four numbers a box and compute the taps themselves, so that nothing but a chunk of
columns is stored. Nothing is kept for the backward pass: it gathers again. Results repeat bit by bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligncli.ops import portable
from aligncli.ops.chunking import Part, split_into_chunks
from aligncli.ops.matmul import prepare_product, product_of_transposes
from aligncli.ops.taps import sum_dtype

# Rows of a matrix product: whole tiles, and enough of them to hide that the packed matrix is read again. Backward
# a chunk is also what the weight's gradient sums over before it is touched, and each thread has as many.
FORWARD_ROWS = 384
BACKWARD_ROWS = 512
CHUNK_BYTES = 10 << 20
TILE = 64
# Of the part of the weight that is worked on: large kernels are taken some rows at a time.
MATRIX_BYTES = 8 << 20


@dataclass(frozen=True)
class Level:
    """One level, laid out for the kernels."""

    map: Tensor  # (N, H, W, C), contiguous
    boxes: Tensor  # (N, R, 4), contiguous, float32 or float64
    stride: float

    def num_locations(self) -> int:
        return self.boxes.shape[0] * self.boxes.shape[1]


@dataclass(frozen=True)
class KernelRows:
    """The kernel rows [begin, end) of a weight (O, C, kh, kw): their taps are a slice of the columns."""

    kernel_size: tuple[int, int]
    begin: int
    end: int

    def num_taps(self) -> int:
        return (self.end - self.begin) * self.kernel_size[1]

    def matrix(self, weight: Tensor) -> Tensor:
        """(O, taps C) of a weight (O, C, kh, kw); a view where that is channels-last."""
        return portable._matrix(weight[:, :, self.begin : self.end])


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
    levels = _lay_out(features, boxes, strides)
    rows = weight.new_empty(sum(level.num_locations() for level in levels), weight.shape[0])
    # In bfloat16 a sum over groups would be rounded after each.
    groups = [_whole_kernel(weight)] if weight.dtype == torch.bfloat16 else _groups_of_kernel_rows(weight)
    for kernel in groups:
        _multiply_columns(levels, kernel, weight, bias, rows)
    return rows


def _multiply_columns(
    levels: Sequence[Level], kernel: KernelRows, weight: Tensor, bias: Tensor | None, rows: Tensor
) -> None:
    """The share of these kernel rows in the output: the first ones set it, with the bias, others add to it."""
    is_first = kernel.begin == 0
    multiply = prepare_product(kernel.matrix(weight), bias if is_first else None)
    columns = _columns_buffer(weight, kernel, len(rows), FORWARD_ROWS)
    start = 0
    for parts in _chunks(levels, columns):
        chunk = _gather(levels, parts, kernel, columns)
        end = start + len(chunk)
        if is_first:
            rows[start:end] = multiply(chunk)
        else:
            rows[start:end] += multiply(chunk)
        start = end


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
    levels = _lay_out(features, boxes, strides)
    grad_rows = grad_rows.contiguous()  # the gradient of a sum is one number, expanded
    grad_weight = _zeros_like_kernel(weight) if needs[-1] else None
    grad_maps = [
        torch.zeros_like(level.map, dtype=sum_dtype(weight)) if needed else None
        for level, needed in zip(levels, needs[:num_levels])
    ]
    grad_boxes = [
        torch.zeros_like(level.boxes) if needed else None for level, needed in zip(levels, needs[num_levels:-1])
    ]
    for kernel in _groups_of_kernel_rows(weight):
        _add_gradients(grad_rows, levels, kernel, weight, grad_weight, grad_maps, grad_boxes)
    gradients = [
        *(grad.permute(0, 3, 1, 2).to(weight.dtype) for grad in grad_maps if grad is not None),
        *(grad.to(level.dtype) for grad, level in zip(grad_boxes, boxes) if grad is not None),
    ]
    if grad_weight is not None:
        gradients.append(grad_weight.to(weight.dtype))
    return gradients


def _add_gradients(
    grad_rows: Tensor,
    levels: Sequence[Level],
    kernel: KernelRows,
    weight: Tensor,
    grad_weight: Tensor | None,
    grad_maps: Sequence[Tensor | None],
    grad_boxes: Sequence[Tensor | None],
) -> None:
    """Add the share of these kernel rows to the gradients that are wanted."""
    needs_columns = any(grad is not None for grad in (*grad_maps, *grad_boxes))
    multiply = prepare_product(kernel.matrix(weight).T, None) if needs_columns else None
    columns = _columns_buffer(weight, kernel, len(grad_rows), BACKWARD_ROWS * torch.get_num_threads())
    start = 0
    for parts in _chunks(levels, columns):
        end = start + sum(part.count for part in parts)
        grad = grad_rows[start:end]
        start = end
        if grad_weight is not None:
            product = product_of_transposes(grad, _gather(levels, parts, kernel, columns))
            kernel.matrix(grad_weight).add_(product)
        if multiply is not None:
            _scatter(multiply(grad), levels, parts, kernel, grad_maps, grad_boxes)


def _lay_out(features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[float]) -> list[Level]:
    return [
        Level(
            map=level.detach().permute(0, 2, 3, 1).contiguous(),
            boxes=level_boxes.detach().to(sum_dtype(level)).contiguous(),
            stride=stride,
        )
        for level, level_boxes, stride in zip(features, boxes, strides, strict=True)
    ]


def _zeros_like_kernel(weight: Tensor) -> Tensor:
    """Channels-last, even where the kernel has one tap and the layout is ambiguous: its matrices are views."""
    out_channels, channels, kernel_height, kernel_width = weight.shape
    zeros = weight.new_zeros(out_channels, kernel_height, kernel_width, channels, dtype=sum_dtype(weight))
    return zeros.permute(0, 3, 1, 2)


def _whole_kernel(weight: Tensor) -> KernelRows:
    kernel_size = (weight.shape[2], weight.shape[3])
    return KernelRows(kernel_size, 0, kernel_size[0])


def _groups_of_kernel_rows(weight: Tensor) -> Iterator[KernelRows]:
    out_channels, channels, kernel_height, kernel_width = weight.shape
    row_bytes = out_channels * kernel_width * channels * weight.itemsize
    num_rows = max(1, MATRIX_BYTES // row_bytes)
    for begin in range(0, kernel_height, num_rows):
        yield KernelRows((kernel_height, kernel_width), begin, min(begin + num_rows, kernel_height))


def _columns_buffer(weight: Tensor, kernel: KernelRows, num_locations: int, num_rows: int) -> Tensor:
    """Room for a chunk of columns: `num_rows`, fewer where they would take more than CHUNK_BYTES, at least one."""
    width = kernel.num_taps() * weight.shape[1]
    fitting = max(1, CHUNK_BYTES // (width * weight.itemsize))
    if fitting > TILE:
        fitting -= fitting % TILE
    return weight.new_empty(min(num_rows, fitting, num_locations), width)


def _chunks(levels: Sequence[Level], columns: Tensor) -> Iterator[list[Part]]:
    return split_into_chunks([level.num_locations() for level in levels], len(columns))


def _gather(levels: Sequence[Level], parts: Sequence[Part], kernel: KernelRows, columns: Tensor) -> Tensor:
    """Columns (r, taps C) of a chunk's r locations: the first rows of the buffer."""
    end = 0
    for part in parts:
        level = levels[part.level]
        start, end = end, end + part.count
        torch.ops.aligncli_ext.gather(
            level.map,
            level.boxes,
            part.first,
            *kernel.kernel_size,
            kernel.begin,
            kernel.end,
            level.stride,
            columns[start:end],
        )
    return columns[:end]


def _scatter(
    grad_columns: Tensor,
    levels: Sequence[Level],
    parts: Sequence[Part],
    kernel: KernelRows,
    grad_maps: Sequence[Tensor | None],
    grad_boxes: Sequence[Tensor | None],
) -> None:
    """Add a chunk's share to the gradients that are wanted."""
    for part, grad in zip(parts, grad_columns.split([part.count for part in parts])):
        level, grad_map, level_grad_boxes = levels[part.level], grad_maps[part.level], grad_boxes[part.level]
        place = (part.first, *kernel.kernel_size, kernel.begin, kernel.end, level.stride)
        if grad_map is not None:
            torch.ops.aligncli_ext.scatter(grad, level.boxes, *place, grad_map)
        if level_grad_boxes is not None:
            torch.ops.aligncli_ext.grad_boxes(grad, level.map, level.boxes, *place, level_grad_boxes)
