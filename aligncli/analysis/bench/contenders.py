"""The contenders of `aligncli bench op`: RoIConv by each backend, and what it could be replaced by.

    conv2d          the limit: the same product, and nothing to sample. Its own taps, whatever the boxes
    deform_conv2d   torchvision's, on the offsets of eq. 4: the same result
    roi_align       torchvision's RoIAlign (sampling_ratio=1, aligned) and a linear layer: the same but at borders
    roi_conv:NAME   ours, all levels in one call; the others go level by level
Each has its best memory layout and ready-made offsets or RoIs: turning boxes into them is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d, roi_align

from aligncli.analysis.bench.layer import Direction, Operands, OperatorCase, make_operands, own_boxes
from aligncli.ops import roi_conv, roi_offsets

PEERS = ("conv2d", "deform_conv2d", "roi_align")
OURS = "roi_conv:"  # and the backend's name


@dataclass(frozen=True)
class Contender:
    """A way to compute the layer, with its operands.

    apply: from features a level, weight and bias to one output a level, (N, O, H, W) maps or (N, H W, O) rows.
    gives_rows: the latter. layout: memory format of the maps that it gets. boxes: those that it reads, as in Operands.
    clamps: at the border it repeats the last cell, where the others read zero.
    coordinate_error: cells, by which half types move its points.
    """

    apply: Callable[[Sequence[Tensor], Tensor, Tensor], list[Tensor]]
    features: list[Tensor]
    weight: Tensor
    bias: Tensor
    boxes: list[Tensor]
    gives_rows: bool = False
    layout: torch.memory_format = torch.channels_last
    clamps: bool = False
    coordinate_error: float = 0.0

    def forward(self) -> list[Tensor]:
        """One output a level, without autograd."""
        with torch.no_grad():
            return self.apply(self.features, self.weight, self.bias)

    def forward_backward(self, cotangents: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs, and gradients to the features of each level, weight and bias; cotangents as the outputs."""
        *features, weight, bias = (
            tensor.detach().requires_grad_() for tensor in (*self.features, self.weight, self.bias)
        )
        outputs = self.apply(features, weight, bias)
        gradients = torch.autograd.grad(outputs, [*features, weight, bias], cotangents)
        return [output.detach() for output in outputs], list(gradients)

    def rows(self, output: Tensor) -> Tensor:
        """(N, H W, O), a view of either kind of output."""
        return output.flatten(2).mT if output.dim() == 4 else output

    def like_outputs(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """(N, H W, O) a level, as outputs in this contender's shape and layout."""
        if self.gives_rows:
            return list(rows)
        return [
            level.mT.unflatten(2, features.shape[2:]).contiguous(memory_format=self.layout)
            for level, features in zip(rows, self.features, strict=True)
        ]


def make_contender(name: str, case: OperatorCase, operands: Operands) -> Contender:
    """By its name: one of PEERS, or OURS and a backend."""
    match name:
        case "conv2d":
            return _conv2d(case, operands)
        case "deform_conv2d":
            return _deform_conv2d(case, operands)
        case "roi_align":
            return _roi_align(case, operands)
        case _:
            return _roi_conv(name.removeprefix(OURS), case, operands)


def _roi_conv(backend: str, case: OperatorCase, operands: Operands) -> Contender:
    boxes = [level.flatten(1, 2) for level in operands.boxes]

    def apply(features: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        return roi_conv(features, boxes, weight, bias, stride=case.strides, backend=backend)

    return Contender(apply, operands.features, operands.weight, operands.bias, operands.boxes, gives_rows=True)


def _conv2d(case: OperatorCase, operands: Operands) -> Contender:
    padding = case.kernel_size // 2

    def apply(features: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [F.conv2d(level, weight, bias, padding=padding) for level in features]

    boxes = [mine.to(given) for mine, given in zip(own_boxes(case), operands.boxes)]
    return Contender(apply, operands.features, operands.weight, operands.bias, boxes)


def _deform_conv2d(case: OperatorCase, operands: Operands) -> Contender:
    exact = [roi_offsets(boxes, case.kernel_size, stride) for boxes, stride in zip(operands.boxes, case.strides)]
    offsets = [level.to(operands.weight.dtype).contiguous() for level in exact]
    padding = (case.kernel_size // 2, case.kernel_size // 2)

    def apply(features: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [deform_conv2d(*pair, weight, bias, padding=padding) for pair in zip(features, offsets)]

    return Contender(
        apply,
        [level.contiguous() for level in operands.features],
        operands.weight.contiguous(),
        operands.bias,
        operands.boxes,
        layout=torch.contiguous_format,
        coordinate_error=max(float((a - b).abs().max()) for a, b in zip(exact, offsets)),
    )


def _roi_align(case: OperatorCase, operands: Operands) -> Contender:
    rois = [_with_image_index(boxes).to(operands.weight.dtype) for boxes in operands.boxes]
    bins = (case.kernel_size, case.kernel_size)

    def apply(features: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        outputs = []
        for level, level_rois, stride in zip(features, rois, case.strides):
            taps = roi_align(level, level_rois, bins, 1 / stride, sampling_ratio=1, aligned=True)  # (N H W, C, k, k)
            outputs.append(F.linear(taps.flatten(1), weight.flatten(1), bias).unflatten(0, (level.shape[0], -1)))
        return outputs

    levels = zip(operands.boxes, rois, case.strides)
    return Contender(
        apply,
        [level.contiguous() for level in operands.features],
        operands.weight.contiguous(),
        operands.bias,
        operands.boxes,
        layout=torch.contiguous_format,
        gives_rows=True,
        clamps=True,
        coordinate_error=max(float((a - b[:, 1:].view_as(a)).abs().max()) / stride for a, b, stride in levels),
    )


def _with_image_index(boxes: Tensor) -> Tensor:
    """(N, H, W, 4) -> torchvision's (N H W, 5), image first."""
    image = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None, None, None]
    return torch.cat([image.expand(*boxes.shape[:3], 1), boxes], dim=-1).flatten(0, 2)


Call = Callable[[], list[Tensor]]


def prepare(contender: Contender, direction: Direction, operands: Operands) -> Call:
    """The call that is measured; it returns outputs, then gradients."""
    if direction == "forward":
        return contender.forward
    return partial(_outputs_and_gradients, contender, contender.like_outputs(operands.cotangents))


def _outputs_and_gradients(contender: Contender, cotangents: list[Tensor]) -> list[Tensor]:
    outputs, gradients = contender.forward_backward(cotangents)
    return outputs + gradients


def build_call(name: str, direction: Direction, case: OperatorCase) -> Call:
    """`prepare` from what can be sent to another process."""
    operands = make_operands(case)
    return prepare(make_contender(name, case, operands), direction, operands)
