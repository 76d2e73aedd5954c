"""RoIConv with nothing but PyTorch: gather a chunk of columns, multiply, repeat.

A map is read as a table with one channels-last row a cell. A location's columns are K weighted sums of four
rows (`embedding_bag`) and one matrix product turns a chunk of them into outputs, so memory is bounded by the
chunk. Nothing is kept for the backward pass: it gathers again, and scatters with the same gather transposed
(entries sorted by cell), without atomics, so results repeat bit by bit. Positions are array indices in cells.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aligncli.ops.offsets import sampling_points

# What stays in the cache of a CPU core, or in the L2 of a large GPU (and of any other accelerator).
CPU_CHUNK_BYTES = 4 << 20
GPU_CHUNK_BYTES = 32 << 20


def chunk_locations(channels: int, num_taps: int, dtype: torch.dtype, device_type: str) -> int:
    """How many locations are gathered and multiplied at once, at least one: a chunk of columns."""
    # Half types count as float32, which the backward pass turns a chunk into.
    return _locations_within_budget(num_taps * channels * max(dtype.itemsize, 4), device_type)


def block_locations(num_taps: int, dtype: torch.dtype, device_type: str) -> int:
    """How many locations have their taps computed at once, at least one: four (index, weight) a tap."""
    return _locations_within_budget(num_taps * 4 * (torch.int64.itemsize + max(dtype.itemsize, 4)), device_type)


def _locations_within_budget(location_bytes: int, device_type: str) -> int:
    budget = CPU_CHUNK_BYTES if device_type == "cpu" else GPU_CHUNK_BYTES
    return max(1, budget // location_bytes)


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
    multiply = _prepare_product(_matrix(weight), bias)
    start = 0
    for level, level_boxes, stride in zip(features, boxes, strides, strict=True):
        table = _table(level)
        for chunk in _chunks(level, level_boxes, weight, stride):
            end = start + len(chunk)
            rows[start:end] = multiply(chunk.gather(table))
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
    matrix = _matrix(weight)
    multiply = _prepare_product(matrix.T, None)
    grad_matrix = matrix.new_zeros(matrix.shape, dtype=_sum_dtype(weight)) if needs[-1] else None
    grad_features, grad_boxes = [], []
    start = 0
    for level, need_features, need_boxes in zip(range(num_levels), needs, needs[num_levels:]):
        table = _table(features[level])
        grad_table = table.new_zeros(table.shape, dtype=_sum_dtype(weight)) if need_features else None
        grad_corners = [boxes[level].new_empty(0, 4)]
        for chunk in _chunks(features[level], boxes[level], weight, strides[level]):
            end = start + len(chunk)
            grad = grad_rows[start:end]
            start = end
            if grad_matrix is not None:
                grad_matrix += _product_of_transposes(grad, chunk.gather(table))
            if not (need_features or need_boxes):
                continue
            grad_taps = multiply(grad).view(-1, table.shape[1]).to(_sum_dtype(weight))  # (r K, C)
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
        gradients.append(_kernel(grad_matrix, like=weight))
    return gradients


@dataclass(frozen=True)
class _Axis:
    """The two cells that each point of a chunk touches along one axis; all (r, k, 2)."""

    cell: Tensor  # int64, always on the map
    weight: Tensor  # 0..1, zero for a cell that is not there
    distance: Tensor  # point minus cell

    def slope(self) -> Tensor:
        """d weight / d point; on a cell's centre, where it jumps, the side of the larger index."""
        rising = (self.distance >= -1) & (self.distance < 0)
        falling = (self.distance >= 0) & (self.distance < 1)
        return rising.to(self.weight.dtype) - falling.to(self.weight.dtype)

    def __getitem__(self, part: slice) -> "_Axis":
        return _Axis(self.cell[part], self.weight[part], self.distance[part])


@dataclass(frozen=True)
class _Taps:
    """What r locations read with K taps each: four rows of the table a tap."""

    rows: _Axis
    columns: _Axis
    index: Tensor  # (r, K, 4) int64
    weight: Tensor  # (r, K, 4)
    stride: float

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice) -> "_Taps":
        return _Taps(self.rows[part], self.columns[part], self.index[part], self.weight[part], self.stride)

    def gather(self, table: Tensor) -> Tensor:
        """Columns (r, K C) out of a table (cells, C)."""
        return self._read(table, self.weight).view(len(self), -1)

    def scatter(self, grad_taps: Tensor, grad_table: Tensor) -> None:
        """Add (r K, C) to the cells that they were gathered from, each cell once."""
        cell, entry = self.index.flatten().sort(stable=True)
        cells, counts = cell.unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        weight = self.weight.flatten()[entry]
        sums = F.embedding_bag(entry // 4, grad_taps, starts, mode="sum", per_sample_weights=weight)
        grad_table.index_add_(0, cells, sums)

    def grad_boxes(self, grad_taps: Tensor, table: Tensor) -> Tensor:
        """Gradient to the boxes (r, 4): from taps (r K, C) to points to the sides of the box."""
        rows, columns = self.rows, self.columns
        along_y = self._read(table, _all_pairs(rows.slope(), columns.weight, torch.mul))
        along_x = self._read(table, _all_pairs(rows.weight, columns.slope(), torch.mul))
        grid = (len(self), rows.cell.shape[1], columns.cell.shape[1])
        grad_y1, grad_y2 = _grad_sides((grad_taps * along_y).sum(-1).view(grid).sum(2), self.stride)
        grad_x1, grad_x2 = _grad_sides((grad_taps * along_x).sum(-1).view(grid).sum(1), self.stride)
        return torch.stack([grad_x1, grad_y1, grad_x2, grad_y2], dim=-1)

    def _read(self, table: Tensor, weight: Tensor) -> Tensor:
        """(r K, C): each tap's four rows of the table, weighted and summed."""
        weight = weight.view(-1, 4).to(table.dtype)
        return F.embedding_bag(self.index.view(-1, 4), table, mode="sum", per_sample_weights=weight)


def _chunks(features: Tensor, boxes: Tensor, weight: Tensor, stride: float) -> Iterator[_Taps]:
    """One level's locations, image-major, a chunk at a time."""
    _, channels, height, width = features.shape
    num_images, num_rois, _ = boxes.shape
    kernel_size = (weight.shape[2], weight.shape[3])
    num_taps, device_type = kernel_size[0] * kernel_size[1], features.device.type
    chunk_size = chunk_locations(channels, num_taps, features.dtype, device_type)
    block_size = block_locations(num_taps, features.dtype, device_type)
    boxes = boxes.reshape(-1, 4).to(_sum_dtype(features))
    for block_start in range(0, num_images * num_rois, block_size):
        block_boxes = boxes[block_start : block_start + block_size]
        location = torch.arange(block_start, block_start + len(block_boxes), device=boxes.device)
        block = _taps(block_boxes, location // num_rois, kernel_size, (height, width), stride)
        for start in range(0, len(block), chunk_size):
            yield block[start : start + chunk_size]


def _taps(
    boxes: Tensor, image: Tensor, kernel_size: tuple[int, int], map_size: tuple[int, int], stride: float
) -> _Taps:
    """boxes (r, 4), each on the map of its image (r,), to the taps inside them."""
    height, width = map_size
    y, x = sampling_points(boxes, kernel_size, stride)
    rows, columns = _touched_cells(y, height), _touched_cells(x, width)
    row_start = (rows.cell + (image * height)[:, None, None]) * width  # in the table
    return _Taps(
        rows=rows,
        columns=columns,
        index=_all_pairs(row_start, columns.cell, torch.add),
        weight=_all_pairs(rows.weight, columns.weight, torch.mul),
        stride=stride,
    )


def _all_pairs(rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(r, kh, 2) with (r, kw, 2) -> (r, K, 4)."""
    return combine(rows[:, :, None, :, None], columns[:, None, :, None, :]).flatten(3).flatten(1, 2)


def _touched_cells(points: Tensor, size: int) -> _Axis:
    """Bilinear interpolation along one axis, without branches.

    The weight of a cell is max(0, 1 - |distance|). With the pair of cells clamped to the map it is right
    for points beyond the border too: partly outside they keep their inner cell's weight, further out (or
    infinite) both are zero.
    """
    position = (points - 0.5).nan_to_num(nan=-2.0)  # NaN lies outside as well
    low = position.floor().clamp(min=0, max=max(size - 2, 0))
    cell = torch.stack([low, low + 1], dim=-1)
    distance = position[..., None] - cell
    if size == 1:  # there is no second cell
        distance = distance + distance.new_tensor([0.0, torch.inf])
        cell = torch.zeros_like(cell)
    weight = (1 - distance.abs()).clamp(min=0)
    return _Axis(cell.long(), weight, distance)


def _grad_sides(grad_points: Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """From points (r, k) to the low and the high side of the box, by eq. 2 along one axis."""
    num_bins = grad_points.shape[1]
    share = (torch.arange(num_bins, device=grad_points.device, dtype=grad_points.dtype) + 0.5) / num_bins
    return (grad_points * (1 - share)).sum(1) / stride, (grad_points * share).sum(1) / stride


def _prepare_product(matrix: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x -> x @ matrix.T + bias, for many x of a chunk's size."""
    if _onednn_serves(matrix):
        packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), None)
        dense_bias = None if bias is None else bias.contiguous()
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, dense_bias, "none", [], "")
    return lambda x: F.linear(x, matrix, bias)


def _product_of_transposes(grad: Tensor, columns: Tensor) -> Tensor:
    """grad.T @ columns: (r, O) and (r, K C) -> (O, K C)."""
    if _onednn_serves(grad):
        return torch.ops.mkldnn._linear_pointwise(grad.T.contiguous(), columns.T, None, "none", [], "")
    return grad.T @ columns


def _onednn_serves(matrix: Tensor) -> bool:
    """Whether to go round BLAS: in float32 on AMD, oneDNN is over twice as fast as the MKL in PyTorch's wheels.

    `conv2d` takes it by itself and `addmm` does not. The operator is private, inductor's own; where it is not
    there, BLAS computes the same. Half types reach oneDNN through `addmm`.
    """
    return (
        matrix.device.type == "cpu"
        and matrix.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    """Coordinates and long sums: float64 for float64, otherwise float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _table(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C); a view when the memory is channels-last."""
    # Detached: embedding_bag would prepare for its own backward.
    return features.detach().permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _map(table: Tensor, *, like: Tensor) -> Tensor:
    num_images, channels, height, width = like.shape
    return table.to(like.dtype).view(num_images, height, width, channels).permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    """(O, C, kh, kw) -> (O, K C), taps outside as in the columns."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _kernel(matrix: Tensor, *, like: Tensor) -> Tensor:
    out_channels, channels, kernel_height, kernel_width = like.shape
    taps_last = matrix.to(like.dtype).view(out_channels, kernel_height, kernel_width, channels)
    return taps_last.permute(0, 3, 1, 2)
