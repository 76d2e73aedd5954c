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
from aligncli.ops.matmul import Product, add_product_of_transposes, onednn_serves
from aligncli.ops.taps import sum_dtype

# Rows of a product with the weight in float32: whole tiles, and enough of them to hide that the packed matrix is read
# again. In the weight's gradient they are what is summed before it is touched, and each thread has as many. Half types
# take twice as many in the same memory: what a chunk costs beside its numbers weighs twice as much there.
PRODUCT_ROWS = 384
WEIGHT_GRADIENT_ROWS = 512
CHUNK_BYTES = 10 << 20
ADDMM_CHUNK_BYTES = 7 << 20
TILE = 64
# Of the part of the weight that is worked on. Large kernels are taken some kernel rows at a time and, forward, some
# outputs of a row: while that part is packed it is held twice.
FORWARD_MATRIX_BYTES = 4 << 20
BACKWARD_MATRIX_BYTES = 8 << 20


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

    def matrix(self, weight: Tensor, outputs: slice = slice(None)) -> Tensor:
        """(o, taps C) of a weight (O, C, kh, kw) and o of its outputs; a view where that is channels-last."""
        return portable._matrix(weight[outputs, :, self.begin : self.end])


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
    if weight.dtype == torch.bfloat16:
        _multiply_columns(levels, _whole_kernel(weight), slice(None), weight, bias, rows)
        return rows
    for kernel in _groups_of_kernel_rows(weight, FORWARD_MATRIX_BYTES):
        for outputs in _groups_of_outputs(weight, kernel):
            _multiply_columns(levels, kernel, outputs, weight, bias, rows)
    return rows


def _multiply_columns(
    levels: Sequence[Level], kernel: KernelRows, outputs: slice, weight: Tensor, bias: Tensor | None, rows: Tensor
) -> None:
    """The share of these kernel rows in these outputs: the first ones set them, with the bias, others add to them."""
    is_first = kernel.begin == 0
    product = Product(kernel.matrix(weight, outputs), bias[outputs] if is_first and bias is not None else None)
    start = 0
    for chunk in _gathered_chunks(levels, kernel, _product_rows(weight, kernel)):
        end = start + len(chunk)
        if is_first:
            product.write(chunk, rows[start:end, outputs])
        else:
            product.add(chunk, rows[start:end, outputs])
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
    for kernel in _groups_of_kernel_rows(weight, BACKWARD_MATRIX_BYTES):
        if grad_weight is not None:
            _add_weight_gradient(grad_rows, levels, kernel, grad_weight)
        if any(needs[:-1]):
            _add_sampled_gradients(grad_rows, levels, kernel, weight, grad_maps, grad_boxes)
    gradients = [
        *(grad.permute(0, 3, 1, 2).to(weight.dtype) for grad in grad_maps if grad is not None),
        *(grad.to(level.dtype) for grad, level in zip(grad_boxes, boxes) if grad is not None),
    ]
    if grad_weight is not None:
        gradients.append(grad_weight.to(weight.dtype))
    return gradients


def _add_weight_gradient(grad_rows: Tensor, levels: Sequence[Level], kernel: KernelRows, grad_weight: Tensor) -> None:
    """Add what these kernel rows' columns and the outputs' gradient make of the weight's."""
    total = kernel.matrix(grad_weight)
    start = 0
    for chunk in _gathered_chunks(levels, kernel, WEIGHT_GRADIENT_ROWS * torch.get_num_threads()):
        end = start + len(chunk)
        add_product_of_transposes(total, grad_rows[start:end], chunk)
        start = end


def _add_sampled_gradients(
    grad_rows: Tensor,
    levels: Sequence[Level],
    kernel: KernelRows,
    weight: Tensor,
    grad_maps: Sequence[Tensor | None],
    grad_boxes: Sequence[Tensor | None],
) -> None:
    """Add the share of these kernel rows to the gradients of maps and boxes that are wanted."""
    product = Product(kernel.matrix(weight).T)
    start = 0
    for parts in _chunks(levels, _chunk_size(levels, kernel, _product_rows(weight, kernel))):
        end = start + sum(part.count for part in parts)
        _scatter(product(grad_rows[start:end]), levels, parts, kernel, grad_maps, grad_boxes)
        start = end


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


def _groups_of_kernel_rows(weight: Tensor, most_bytes: int) -> Iterator[KernelRows]:
    """As many kernel rows at a time as take `most_bytes` of the weight, at least one."""
    out_channels, channels, kernel_height, kernel_width = weight.shape
    row_bytes = out_channels * kernel_width * channels * weight.itemsize
    num_rows = max(1, most_bytes // row_bytes)
    for begin in range(0, kernel_height, num_rows):
        yield KernelRows((kernel_height, kernel_width), begin, min(begin + num_rows, kernel_height))


def _groups_of_outputs(weight: Tensor, kernel: KernelRows) -> Iterator[slice]:
    """All outputs; equal shares of them where these kernel rows' part of the weight, packed, would be too large."""
    out_channels, channels = weight.shape[:2]
    if not onednn_serves(weight):
        yield slice(None)
        return
    matrix_bytes = out_channels * kernel.num_taps() * channels * weight.itemsize
    share = -(-out_channels // -(-matrix_bytes // FORWARD_MATRIX_BYTES))
    share = min(-(-share // TILE) * TILE, out_channels)
    for begin in range(0, out_channels, share):
        yield slice(begin, begin + share)


def _product_rows(weight: Tensor, kernel: KernelRows) -> int:
    """`addmm` packs the weight anew for every chunk, and it is not held in between: up to twice the rows."""
    if onednn_serves(weight):
        return PRODUCT_ROWS
    fitting = ADDMM_CHUNK_BYTES // (kernel.num_taps() * weight.shape[1] * torch.float32.itemsize)
    return max(PRODUCT_ROWS, min(2 * PRODUCT_ROWS, fitting - fitting % TILE))


def _chunk_size(levels: Sequence[Level], kernel: KernelRows, num_rows: int) -> int:
    """Locations of a chunk: `num_rows` in float32; fewer where columns would take over CHUNK_BYTES, at least one."""
    like = levels[0].map
    row_bytes = kernel.num_taps() * like.shape[-1] * like.itemsize
    fitting = max(1, CHUNK_BYTES // row_bytes)
    if fitting > TILE:
        fitting -= fitting % TILE
    return min(num_rows * torch.float32.itemsize // like.itemsize, fitting)


def _chunks(levels: Sequence[Level], chunk_size: int) -> Iterator[list[Part]]:
    return split_into_chunks([level.num_locations() for level in levels], chunk_size)


def _gathered_chunks(levels: Sequence[Level], kernel: KernelRows, num_rows: int) -> Iterator[Tensor]:
    """The columns (r, taps C) of a chunk's r locations, one chunk after the other in the same memory."""
    like = levels[0].map
    chunk_size = min(_chunk_size(levels, kernel, num_rows), sum(level.num_locations() for level in levels))
    columns = like.new_empty(chunk_size, kernel.num_taps() * like.shape[-1])
    for parts in _chunks(levels, chunk_size):
        end = 0
        for part in parts:
            level = levels[part.level]
            start, end = end, end + part.count
            place = (part.first, *kernel.kernel_size, kernel.begin, kernel.end, level.stride)
            torch.ops.aligncli_ext.gather.default(level.map, level.boxes, *place, columns[start:end])
        yield columns[:end]


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
            torch.ops.aligncli_ext.scatter.default(grad, level.boxes, *place, grad_map)
        if level_grad_boxes is not None:
            torch.ops.aligncli_ext.grad_boxes.default(grad, level.map, level.boxes, *place, level_grad_boxes)
