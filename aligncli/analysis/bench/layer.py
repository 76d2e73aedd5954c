"""What is benchmarked: one layer on one pyramid, and the numbers that every contender computes with.

Boxes are xyxy in pixels of the network input. Shapes of levels are (height, width) in cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from aligncli.anchors import AnchorGenerator
from aligncli.boxes import clip_boxes, decode_boxes
from aligncli.ops import implicit_rois

STRIDES = {f"p{level}": 2**level for level in range(2, 8)}  # pixels a cell
LEVELS = ("p3", "p4", "p5", "p6", "p7")  # that detectors use
PADDED_TO = 32  # images are padded to a multiple, as in training
# Refined anchors as a detection head makes them: around the anchor of their cell, each with a size of its own.
ANCHOR_SCALE, SHIFT_STD, LOG_SIZE_STD = 4.0, 0.15, 0.4

Boxes = Literal["refined", "implicit"]
Direction = Literal["forward", "forward+backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "forward+backward")


@dataclass(frozen=True)
class OperatorCase:
    """One layer on one pyramid: everything that decides what is computed.

    size: height, width in pixels. tf32: on CUDA, what float32 is.
    """

    levels: tuple[str, ...] = LEVELS
    size: tuple[int, int] = (800, 1333)
    kernel_size: int = 3
    in_channels: int = 256
    out_channels: int = 256
    dtype: str = "float32"
    batch: int = 1
    boxes: Boxes = "refined"
    device: str = "cpu"
    tf32: bool = False

    @property
    def strides(self) -> list[int]:
        """Pixels a cell, one a level."""
        return [STRIDES[level] for level in self.levels]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) in cells, one a level; partial cells count, as strided convolutions have it."""
        height, width = (-(-side // PADDED_TO) * PADDED_TO for side in self.size)
        return [(-(-height // stride), -(-width // stride)) for stride in self.strides]

    @property
    def num_rows(self) -> int:
        """Locations of all levels and images; one box and one output each."""
        return self.batch * sum(height * width for height, width in self.shapes)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, C, k, k)."""
        return self.out_channels, self.in_channels, self.kernel_size, self.kernel_size

    def flops(self, direction: Direction) -> int:
        """Of the matrix products, 2 a multiply-add, as for conv2d: 2 rows K C O, thrice with the backward pass."""
        forward = 2 * self.num_rows * self.kernel_size**2 * self.in_channels * self.out_channels
        return forward if direction == "forward" else 3 * forward

    def small(self) -> OperatorCase:
        """The same layer on a pyramid of a few cells, to load code and to see what runs at all."""
        return replace(self, size=(PADDED_TO, PADDED_TO), batch=1)


@dataclass(frozen=True)
class Operands:
    """The numbers that all contenders compute with; maps are channels_last in memory.

    features: (N, C, H, W) and boxes: (N, H, W, 4) xyxy pixels a level; weight: (O, C, k, k); bias: (O,);
    cotangents: the gradient that comes back, (N, H W, O) a level.
    """

    features: list[Tensor]
    boxes: list[Tensor]
    weight: Tensor
    bias: Tensor
    cotangents: list[Tensor]


def make_operands(case: OperatorCase) -> Operands:
    """Normal numbers, the same for the same case on every device."""
    generator = torch.Generator().manual_seed(0)
    dtype, batch = getattr(torch, case.dtype), case.batch

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator).mul_(std).to(case.device, dtype)

    box_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    fan_in = case.kernel_size**2 * case.in_channels
    return Operands(
        features=[normal(batch, *shape, case.in_channels).permute(0, 3, 1, 2) for shape in case.shapes],
        boxes=[boxes.to(case.device, box_dtype) for boxes in _boxes(case, generator)],
        weight=normal(*case.weight_shape, std=fan_in**-0.5).contiguous(memory_format=torch.channels_last),
        bias=normal(case.out_channels),
        cotangents=[normal(batch, height * width, case.out_channels) for height, width in case.shapes],
    )


def own_boxes(case: OperatorCase) -> list[Tensor]:
    """The boxes that a plain convolution looks at, (N, H, W, 4) a level, on the CPU."""
    return [
        implicit_rois(*shape, case.kernel_size, stride).expand(case.batch, -1, -1, -1)
        for shape, stride in zip(case.shapes, case.strides)
    ]


def _boxes(case: OperatorCase, generator: torch.Generator) -> list[Tensor]:
    if case.boxes == "implicit":
        return own_boxes(case)
    levels = zip(case.shapes, case.strides)
    return [refined_anchors(case.batch, shape, stride, case.size, generator) for shape, stride in levels]


def refined_anchors(
    num_images: int, shape: tuple[int, int], stride: int, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Boxes (N, H, W, 4) xyxy pixels like those of a detection head: anchors moved and resized, then clipped.

    Neighbours are independent of each other, which is harder on caches than the boxes of a trained head.
    """
    anchors = AnchorGenerator(scales=[ANCHOR_SCALE], ratios=[1.0])(*shape, stride)  # (H W, 4)
    stds = torch.tensor([SHIFT_STD, SHIFT_STD, LOG_SIZE_STD, LOG_SIZE_STD])
    deltas = torch.randn(num_images, len(anchors), 4, generator=generator) * stds
    boxes = clip_boxes(decode_boxes(anchors, deltas), torch.tensor([size] * num_images), min_side=1.0)
    return boxes.view(num_images, *shape, 4)
