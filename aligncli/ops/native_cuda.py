"""RoIConv on CUDA: gather a chunk of columns with our kernels, multiply it with cuBLAS, repeat.

Every step is queued on the current stream and none waits for the device, so streams and CUDA graphs work as with
PyTorch's own operators (as there, warm up before capturing: the first call loads the kernels). A chunk of columns
stays in a large GPU's L2 and may span levels, so that small ones need no products of their own. Nothing is kept for
the backward pass: it gathers again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligncli.ops import portable
from aligncli.ops.chunking import Part, split_into_chunks
from aligncli.ops.taps import GPU_CHUNK_BYTES
from aligncli_ext.cuda import Chunk, Kernels, load_kernels

# Rows of a chunk, where there are that many: products waste no part of a tile.
_TILE = 128


@dataclass(frozen=True)
class Level:
    """One level, laid out for the kernels."""

    table: Tensor  # (N H W, C)
    boxes: Tensor  # (N R, 4) float32
    map_size: tuple[int, int]
    num_rois: int  # of an image
    stride: float

    def chunk(self, part: Part, kernel_size: tuple[int, int]) -> Chunk:
        """What the kernels are told about locations of this level."""
        first_image, first_roi = divmod(part.first, self.num_rois)
        kernel_height, kernel_width = kernel_size
        return Chunk(
            height=self.map_size[0],
            width=self.map_size[1],
            channels=self.table.shape[1],
            kernel_height=kernel_height,
            kernel_width=kernel_width,
            num_rois=self.num_rois,
            first_image=first_image,
            first_roi=first_roi,
            num_locations=part.count,
            stride=self.stride,
            extent_y=kernel_height * self.stride,
            extent_x=kernel_width * self.stride,
        )


def forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
) -> Tensor:
    """Rows of every level, level-major and image-major within: (sum of N R_l, O), in the features' dtype.

    features: (N, C, H, W) and boxes: (N, R_l, 4) a level; weight: (O, C, kh, kw); bias: (O,). All on one device.
    """
    kernels = _kernels_for(weight)
    matrix = portable._matrix(weight)
    with kernels.on_device():
        levels = _lay_out(features, boxes, strides)
        rows = weight.new_empty(sum(len(level.boxes) for level in levels), len(matrix))
        columns = _columns_buffer(len(rows), matrix)
        start = 0
        for parts in _chunks(levels, columns):
            chunk_columns = _gather(kernels, levels, parts, weight, columns)
            end = start + len(chunk_columns)
            if bias is None:
                torch.mm(chunk_columns, matrix.T, out=rows[start:end])
            else:
                torch.addmm(bias, chunk_columns, matrix.T, out=rows[start:end])
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

    grad_rows: (sum of N R_l, O). Sums over locations run in float32; a gradient has its input's shape and dtype, and
    channels-last memory. The features' is summed in no particular order, unless PyTorch is told to be deterministic.
    """
    num_levels = len(features)
    if torch.are_deterministic_algorithms_enabled() and any(needs[:num_levels]):
        return portable.backward(grad_rows, features, boxes, weight, strides, needs)
    kernels = _kernels_for(weight)
    matrix = portable._matrix(weight)
    with kernels.on_device():
        grad_rows = grad_rows.contiguous()
        levels = _lay_out(features, boxes, strides)
        columns = _columns_buffer(len(grad_rows), matrix)
        grad_matrix = torch.zeros_like(matrix, dtype=torch.float32) if needs[-1] else None
        if grad_matrix is not None:
            _add_weight_gradient(kernels, levels, weight, grad_rows, columns, grad_matrix)
        grad_tables = [
            torch.zeros_like(level.table, dtype=torch.float32) if needed else None
            for level, needed in zip(levels, needs)
        ]
        grad_boxes = [
            torch.empty_like(level.boxes) if needed else None for level, needed in zip(levels, needs[num_levels:])
        ]
        if any(needs[:-1]):
            _add_sampled_gradients(kernels, levels, weight, grad_rows, columns, grad_tables, grad_boxes)
        gradients = [
            *(portable._map(table, like=like) for table, like in zip(grad_tables, features) if table is not None),
            *(found.view(like.shape).to(like.dtype) for found, like in zip(grad_boxes, boxes) if found is not None),
        ]
        if grad_matrix is not None:
            gradients.append(portable._kernel(grad_matrix, like=weight))
    return gradients


def _add_weight_gradient(
    kernels: Kernels, levels: Sequence[Level], weight: Tensor, grad_rows: Tensor, columns: Tensor, grad_matrix: Tensor
) -> None:
    """Add what the columns and the outputs' gradient make of the weight's (O, K C)."""
    start = 0
    for parts in _chunks(levels, columns):
        chunk = _gather(kernels, levels, parts, weight, columns)
        _add_product(grad_matrix, grad_rows[start : start + len(chunk)].T, chunk)
        start += len(chunk)


def _add_sampled_gradients(
    kernels: Kernels,
    levels: Sequence[Level],
    weight: Tensor,
    grad_rows: Tensor,
    columns: Tensor,
    grad_tables: Sequence[Tensor | None],
    grad_boxes: Sequence[Tensor | None],
) -> None:
    """Add to the gradients of tables and boxes that are wanted; `columns` is memory for a chunk."""
    matrix, kernel_size = portable._matrix(weight), (weight.shape[2], weight.shape[3])
    start = 0
    for parts in _chunks(levels, columns):
        grad = grad_rows[start : start + sum(part.count for part in parts)]
        start += len(grad)
        grad_columns = torch.mm(grad, matrix, out=columns[: len(grad)])
        for part, part_columns in _split(grad_columns, parts):
            level, grad_table, level_grad_boxes = levels[part.level], grad_tables[part.level], grad_boxes[part.level]
            chunk = level.chunk(part, kernel_size)
            if grad_table is not None:
                kernels.scatter(chunk, part_columns, level.boxes, grad_table)
            if level_grad_boxes is not None:
                kernels.grad_boxes(chunk, part_columns, level.table, level.boxes, level_grad_boxes)


def _kernels_for(weight: Tensor) -> Kernels:
    return load_kernels(weight.dtype, weight.device.index)


def _lay_out(features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[float]) -> list[Level]:
    return [
        Level(
            table=portable._table(level).contiguous(),
            boxes=level_boxes.detach().reshape(-1, 4).to(torch.float32).contiguous(),
            map_size=(level.shape[2], level.shape[3]),
            num_rois=level_boxes.shape[1],
            stride=stride,
        )
        for level, level_boxes, stride in zip(features, boxes, strides, strict=True)
    ]


def _columns_buffer(num_locations: int, matrix: Tensor) -> Tensor:
    """Room for a chunk of columns (r, K C), such that all chunks are about as large."""
    row_bytes = matrix.shape[1] * matrix.itemsize
    return matrix.new_empty(_chunk_size(num_locations, GPU_CHUNK_BYTES // row_bytes), matrix.shape[1])


def _chunk_size(num_locations: int, most: int) -> int:
    """Locations of a chunk: at most `most`, but at least one; whole tiles where that allows one."""
    most = max(1, most)
    if most >= _TILE:
        most -= most % _TILE
    num_chunks = max(1, -(-num_locations // most))
    even = -(-num_locations // num_chunks)
    return min(most, -(-even // _TILE) * _TILE)


def _chunks(levels: Sequence[Level], columns: Tensor) -> Iterator[list[Part]]:
    return split_into_chunks([len(level.boxes) for level in levels], len(columns))


def _gather(
    kernels: Kernels, levels: Sequence[Level], parts: Sequence[Part], weight: Tensor, columns: Tensor
) -> Tensor:
    """The columns of one chunk, at the beginning of the buffer."""
    for part, part_columns in _split(columns, parts):
        level = levels[part.level]
        chunk = level.chunk(part, (weight.shape[2], weight.shape[3]))
        kernels.gather(chunk, level.table, level.boxes, part_columns)
    return columns[: sum(part.count for part in parts)]


def _split(columns: Tensor, parts: Sequence[Part]) -> Iterator[tuple[Part, Tensor]]:
    """Each part with its rows of a chunk's columns."""
    start = 0
    for part in parts:
        yield part, columns[start : start + part.count]
        start += part.count


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in float32."""
    if right.dtype == torch.float32:
        torch.addmm(total, left, right, out=total)
    else:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
