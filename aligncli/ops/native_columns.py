"""RoIConv on the CPU by columns: gather a chunk of them, multiply in PyTorch, repeat.

The kernels (aligncli_ext) read four numbers a box and compute the taps themselves, so that nothing but a chunk of
columns is stored. Levels share the chunks.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aligncli.ops.chunking import Part, split_into_chunks
from aligncli.ops.matmul import Product, add_product_of_transposes, onednn_serves
from aligncli.ops.native_parts import KernelRows, Level, groups_of_kernel_rows, whole_kernel

# Rows of a product with the weight in float32: whole tiles, and enough of them to hide that the packed matrix is read
# again. In the weight's gradient they are what is summed before it is touched, and each thread has as many. Half types
# take twice as many in the same memory: what a chunk costs beside its numbers weighs twice as much there.
PRODUCT_ROWS = 384
WEIGHT_GRADIENT_ROWS = 512
CHUNK_BYTES = 10 << 20
TILE = 64
# Of the part of the weight that is worked on. Large kernels are taken some kernel rows at a time and, forward, some
# outputs of a row: while that part is packed it is held twice.
FORWARD_MATRIX_BYTES = 4 << 20
BACKWARD_MATRIX_BYTES = 8 << 20


def forward(levels: Sequence[Level], weight: Tensor, bias: Tensor | None) -> Tensor:
    """As native.forward."""
    rows = weight.new_empty(sum(level.num_locations() for level in levels), weight.shape[0])
    # In bfloat16 a sum over groups would be rounded after each.
    if weight.dtype == torch.bfloat16:
        _multiply_columns(levels, whole_kernel(weight), slice(None), weight, bias, rows)
        return rows
    for kernel in groups_of_kernel_rows(weight, FORWARD_MATRIX_BYTES):
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
    for chunk in _gathered_chunks(levels, kernel, PRODUCT_ROWS):
        end = start + len(chunk)
        if is_first:
            product.write(chunk, rows[start:end, outputs])
        else:
            product.add(chunk, rows[start:end, outputs])
        start = end


def add_weight_gradient(grad_rows: Tensor, levels: Sequence[Level], grad_weight: Tensor) -> None:
    """Add to the weight's gradient (O, C, kh, kw), channels-last. grad_rows: (sum of N R_l, O), contiguous."""
    for kernel in groups_of_kernel_rows(grad_weight, BACKWARD_MATRIX_BYTES):
        total = kernel.matrix(grad_weight)
        start = 0
        for chunk in _gathered_chunks(levels, kernel, WEIGHT_GRADIENT_ROWS * torch.get_num_threads()):
            end = start + len(chunk)
            add_product_of_transposes(total, grad_rows[start:end], chunk)
            start = end


def add_sampled_gradients(
    grad_rows: Tensor,
    levels: Sequence[Level],
    weight: Tensor,
    grad_maps: Sequence[Tensor | None],
    grad_boxes: Sequence[Tensor | None],
) -> None:
    """Add to the gradients of maps (N, H, W, C) and boxes (N, R_l, 4) that are wanted.

    grad_rows: (sum of N R_l, O), contiguous.
    """
    for kernel in groups_of_kernel_rows(weight, BACKWARD_MATRIX_BYTES):
        product = Product(kernel.matrix(weight).T)
        start = 0
        for parts in _chunks(levels, _chunk_size(levels, kernel, PRODUCT_ROWS)):
            end = start + sum(part.count for part in parts)
            _scatter(product(grad_rows[start:end]), levels, parts, kernel, grad_maps, grad_boxes)
            start = end


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
            torch.ops.aligncli_ext.gather.default(
                level.map, level.boxes, part.first, *kernel.place(level), columns[start:end]
            )
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
        place = (part.first, *kernel.place(level))
        if grad_map is not None:
            torch.ops.aligncli_ext.scatter.default(grad, level.boxes, *place, grad_map)
        if level_grad_boxes is not None:
            torch.ops.aligncli_ext.grad_boxes.default(grad, level.map, level.boxes, *place, level_grad_boxes)
