"""What both CPU paths with our own kernels work on: a level laid out for them, and some rows of the kernel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from aligncli.ops import portable
from aligncli.ops.taps import sum_dtype


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

    def place(self, level: Level) -> tuple[int, int, int, int, float]:
        """What the kernels take to know where the taps of a level's locations lie."""
        return (*self.kernel_size, self.begin, self.end, level.stride)

    def of(self, weight: Tensor) -> Tensor:
        """Their part (O, C, end - begin, kw) of a weight; a view."""
        return weight[:, :, self.begin : self.end]

    def matrix(self, weight: Tensor, outputs: slice = slice(None)) -> Tensor:
        """(o, taps C) of a weight (O, C, kh, kw) and o of its outputs; a view where that is channels-last."""
        return portable.weight_matrix(self.of(weight)[outputs])


def lay_out(features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[float]) -> list[Level]:
    """(N, C, H, W) maps and (N, R_l, 4) boxes a level, as the kernels read them: copies where they lie otherwise."""
    return [
        Level(
            map=level.detach().permute(0, 2, 3, 1).contiguous(),
            boxes=level_boxes.detach().to(sum_dtype(level)).contiguous(),
            stride=stride,
        )
        for level, level_boxes, stride in zip(features, boxes, strides, strict=True)
    ]


def whole_kernel(weight: Tensor) -> KernelRows:
    """All rows."""
    kernel_size = (weight.shape[2], weight.shape[3])
    return KernelRows(kernel_size, 0, kernel_size[0])


def groups_of_kernel_rows(weight: Tensor, most_bytes: int) -> Iterator[KernelRows]:
    """As many kernel rows at a time as take `most_bytes` of the weight, at least one."""
    out_channels, channels, kernel_height, kernel_width = weight.shape
    row_bytes = out_channels * kernel_width * channels * weight.itemsize
    num_rows = max(1, most_bytes // row_bytes)
    for begin in range(0, kernel_height, num_rows):
        yield KernelRows((kernel_height, kernel_width), begin, min(begin + num_rows, kernel_height))
