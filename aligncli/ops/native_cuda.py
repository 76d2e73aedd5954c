"""RoIConv on CUDA: gather a chunk of columns with our kernels, multiply it with cuBLAS, repeat.

Every step is queued on the current stream and none waits for the device, so streams and CUDA graphs work as with
PyTorch's own operators (as there, warm up before capturing: the first call loads the kernels). A chunk of columns
is about as large as a large GPU's L2 and may span levels, so that small ones need no products of their own. Nothing
is kept for the backward pass: it gathers again.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aligncli.ops import portable
from aligncli.ops.taps import GPU_CHUNK_BYTES
from aligncli_ext.cuda import (
    MOST_KERNEL_SIDES,
    MOST_LEVELS,
    MOST_LOCATIONS,
    MOST_ROW_NUMBERS,
    Kernels,
    Pyramid,
    load_kernels,
)

# Rows of a chunk, where there are that many: products waste no part of a tile.
_TILE = 128


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
    if not serves(features, boxes, weight):
        return portable.forward(features, boxes, weight, bias, strides)
    kernels = _kernels_for(weight)
    matrix = portable.weight_matrix(weight)
    with kernels.on_device():
        maps, flat_boxes = lay_out(features, boxes)
        pyramid = Pyramid(maps, flat_boxes, strides, kernel_size(weight))
        rows = weight.new_empty(pyramid.num_locations, weight.shape[0])
        columns = _columns_buffer(pyramid.num_locations, matrix)
        for start, end in _chunks(pyramid.num_locations, columns.shape[0]):
            chunk = columns[: end - start]
            kernels.gather(pyramid, start, chunk)
            if bias is None:
                torch.mm(chunk, matrix.T, out=rows[start:end])
            else:
                torch.addmm(bias, chunk, matrix.T, out=rows[start:end])
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
    is_unordered = torch.are_deterministic_algorithms_enabled() and any(needs[:num_levels])
    if is_unordered or not serves(features, boxes, weight):
        return portable.backward(grad_rows, features, boxes, weight, strides, needs)
    kernels = _kernels_for(weight)
    matrix = portable.weight_matrix(weight)
    with kernels.on_device():
        grad_rows = grad_rows.contiguous()
        maps, flat_boxes = lay_out(features, boxes)
        grad_maps = [
            torch.zeros_like(level, dtype=torch.float32, memory_format=torch.channels_last) if needed else None
            for level, needed in zip(maps, needs)
        ]
        grad_boxes = [
            torch.empty_like(level) if needed else None for level, needed in zip(flat_boxes, needs[num_levels:])
        ]
        pyramid = Pyramid(maps, flat_boxes, strides, kernel_size(weight), grad_maps=grad_maps, grad_boxes=grad_boxes)
        columns = _columns_buffer(len(grad_rows), matrix)
        grad_matrix = torch.zeros_like(matrix, dtype=torch.float32) if needs[-1] else None
        if grad_matrix is not None:
            _add_weight_gradient(kernels, pyramid, grad_rows, columns, grad_matrix)
        if any(needs[:-1]):
            _add_sampled_gradients(kernels, pyramid, matrix, grad_rows, columns, needs)
        gradients = [
            *(found.to(like.dtype) for found, like in zip(grad_maps, features) if found is not None),
            *(found.to(like.dtype) for found, like in zip(grad_boxes, boxes) if found is not None),
        ]
        if grad_matrix is not None:
            gradients.append(portable.weight_of_matrix(grad_matrix, like=weight))
    return gradients


def _add_weight_gradient(
    kernels: Kernels, pyramid: Pyramid, grad_rows: Tensor, columns: Tensor, grad_matrix: Tensor
) -> None:
    """Add what the columns and the outputs' gradient make of the weight's (O, K C)."""
    for start, end in _chunks(len(grad_rows), len(columns)):
        chunk = columns[: end - start]
        kernels.gather(pyramid, start, chunk)
        _add_product(grad_matrix, grad_rows[start:end].T, chunk)


def _add_sampled_gradients(
    kernels: Kernels, pyramid: Pyramid, matrix: Tensor, grad_rows: Tensor, columns: Tensor, needs: Sequence[bool]
) -> None:
    """Add to the gradients of maps and boxes that are wanted; `columns` is memory for a chunk."""
    num_levels = pyramid.num_levels
    for start, end in _chunks(len(grad_rows), len(columns)):
        grad_columns = torch.mm(grad_rows[start:end], matrix, out=columns[: end - start])
        if any(needs[:num_levels]):
            kernels.scatter(pyramid, start, grad_columns)
        if any(needs[num_levels:-1]):
            kernels.grad_boxes(pyramid, start, grad_columns)


def serves(features: Sequence[Tensor], boxes: Sequence[Tensor], weight: Tensor) -> bool:
    """Whether the numbers are not beyond what the kernels count with."""
    num_locations = sum(level.shape[0] * level.shape[1] for level in boxes)
    return (
        len(boxes) <= MOST_LEVELS
        and num_locations < MOST_LOCATIONS
        and weight.shape[2] + weight.shape[3] <= MOST_KERNEL_SIDES
        and weight.shape[1] * max(level.shape[3] for level in features) < MOST_ROW_NUMBERS
    )


def _kernels_for(weight: Tensor) -> Kernels:
    return load_kernels(weight.dtype, weight.device.index)


def kernel_size(weight: Tensor) -> tuple[int, int]:
    """(kh, kw)."""
    return weight.shape[2], weight.shape[3]


def lay_out(features: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Maps and boxes as the kernels read them; themselves where they lie so already."""
    maps = [level.contiguous(memory_format=torch.channels_last) for level in features]
    return maps, [_plain(level_boxes) for level_boxes in boxes]


def _plain(boxes: Tensor) -> Tensor:
    """Contiguous in float32; asking first, as `to` takes a microsecond where there is nothing to do."""
    is_plain = boxes.dtype == torch.float32 and boxes.is_contiguous()
    return boxes if is_plain else boxes.to(torch.float32).contiguous()


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
    return max(1, min(most, -(-even // _TILE) * _TILE))


def _chunks(num_locations: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """The first location of each chunk, and the one after its last."""
    for start in range(0, num_locations, chunk_size):
        yield start, min(start + chunk_size, num_locations)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in float32."""
    if right.dtype == torch.float32:
        torch.addmm(total, left, right, out=total)
    else:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
