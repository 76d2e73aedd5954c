"""What a location reads with its K taps, a chunk of locations at a time, and the two ways through it.

The grid of a box is axis-aligned, so a location needs kh + kw axis records; their pairs are four table rows
and weights a tap. `gather` sums rows (`embedding_bag`); `scatter` is the same sum transposed (entries sorted
by cell), without atomics, so results repeat bit by bit. Positions are array indices in cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aligncli.ops.offsets import sampling_points

CPU_CHUNK_BYTES = 4 << 20  # stays in the cache of a core
# For an H200's L2 of 60 MB, and any other accelerator: faster there than 16 or 32 MB, and within 64 MB of extra memory.
GPU_CHUNK_BYTES = 56 << 20


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


@dataclass(frozen=True)
class Axis:
    """The two cells that each point of a chunk touches along one axis; all (r, k, 2)."""

    cell: Tensor  # int64, always on the map
    weight: Tensor  # 0..1, zero for a cell that is not there
    distance: Tensor  # point minus cell

    def slope(self) -> Tensor:
        """d weight / d point; on a cell's centre, where it jumps, the side of the larger index."""
        rising = (self.distance >= -1) & (self.distance < 0)
        falling = (self.distance >= 0) & (self.distance < 1)
        return rising.to(self.weight.dtype) - falling.to(self.weight.dtype)

    def __getitem__(self, part: slice) -> Axis:
        return Axis(self.cell[part], self.weight[part], self.distance[part])


@dataclass(frozen=True)
class Taps:
    """What r locations read with K taps each: four rows of the table a tap."""

    rows: Axis
    columns: Axis
    index: Tensor  # (r, K, 4) int64
    weight: Tensor  # (r, K, 4)
    stride: float

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice) -> Taps:
        return Taps(self.rows[part], self.columns[part], self.index[part], self.weight[part], self.stride)

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


def chunks(features: Tensor, boxes: Tensor, weight: Tensor, stride: float) -> Iterator[Taps]:
    """One level's locations, image-major, a chunk at a time."""
    _, channels, height, width = features.shape
    num_images, num_rois, _ = boxes.shape
    kernel_size = (weight.shape[2], weight.shape[3])
    num_taps, device_type = kernel_size[0] * kernel_size[1], features.device.type
    chunk_size = chunk_locations(channels, num_taps, features.dtype, device_type)
    block_size = block_locations(num_taps, features.dtype, device_type)
    boxes = boxes.reshape(-1, 4).to(sum_dtype(features))
    for block_start in range(0, num_images * num_rois, block_size):
        block_boxes = boxes[block_start : block_start + block_size]
        location = torch.arange(block_start, block_start + len(block_boxes), device=boxes.device)
        block = _taps(block_boxes, location // num_rois, kernel_size, (height, width), stride)
        for start in range(0, len(block), chunk_size):
            yield block[start : start + chunk_size]


def _taps(boxes: Tensor, image: Tensor, kernel_size: tuple[int, int], map_size: tuple[int, int], stride: float) -> Taps:
    """boxes (r, 4), each on the map of its image (r,), to the taps inside them."""
    height, width = map_size
    y, x = sampling_points(boxes, kernel_size, stride)
    rows, columns = _touched_cells(y, height), _touched_cells(x, width)
    row_start = (rows.cell + (image * height)[:, None, None]) * width  # in the table
    return Taps(
        rows=rows,
        columns=columns,
        index=_all_pairs(row_start, columns.cell, torch.add),
        weight=_all_pairs(rows.weight, columns.weight, torch.mul),
        stride=stride,
    )


def _all_pairs(rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(r, kh, 2) with (r, kw, 2) -> (r, K, 4)."""
    return combine(rows[:, :, None, :, None], columns[:, None, :, None, :]).flatten(3).flatten(1, 2)


def _touched_cells(points: Tensor, size: int) -> Axis:
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
    return Axis(cell.long(), weight, distance)


def _grad_sides(grad_points: Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """From points (r, k) to the low and the high side of the box, by eq. 2 along one axis."""
    num_bins = grad_points.shape[1]
    share = (torch.arange(num_bins, device=grad_points.device, dtype=grad_points.dtype) + 0.5) / num_bins
    return (grad_points * (1 - share)).sum(1) / stride, (grad_points * share).sum(1) / stride


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """Coordinates and long sums: float64 for float64, otherwise float32."""
    return torch.promote_types(tensor.dtype, torch.float32)
