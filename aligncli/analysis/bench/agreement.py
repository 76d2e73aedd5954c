"""No wrong contender is timed: outputs and gradients are held against the reference, in float64, at full size.

Full size, yet cheap: only some locations are compared, and only they send a gradient back, so that the
gradients of the whole are those of these locations; and the reference computes gradients for some channels.
Locations whose taps leave the map are among them, but for a contender that treats the border otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligncli.analysis.bench.contenders import Contender
from aligncli.analysis.bench.failures import Failure
from aligncli.analysis.bench.layer import Operands, OperatorCase
from aligncli.ops import reference, sampling_points

LOCATIONS = 24  # compared on a level, of either kind: with all taps on the map, and with some outside
CHANNELS = 8  # whose gradients are compared
# Of the largest value. Float32: at points far from the origin the fraction has few bits left.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
TF32_TOLERANCE = TOLERANCES[torch.float16]  # both have ten bits of a fraction
TOLERANCE_A_CELL = 2.0  # how much noise may change when a point moves by a cell


@dataclass(frozen=True)
class Answer:
    """What is right at some locations, in float64, and which those are.

    index: (r,) of each level's H W locations, the same in all images. cotangents, outputs: (N, r, O) a level.
    features: gradients (N, channels, H, W) a level; weight: (O, channels, k, k); bias: (O,).
    """

    index: list[Tensor]
    cotangents: list[Tensor]
    outputs: list[Tensor]
    channels: Tensor
    features: list[Tensor]
    weight: Tensor
    bias: Tensor


class Referee:
    """Knows what is right for one case, whatever boxes a contender reads."""

    def __init__(self, case: OperatorCase, operands: Operands) -> None:
        self._case = case
        self._operands = operands
        self._answers: dict[tuple[bool, bool], Answer] = {}

    def find_failure(self, contender: Contender) -> Failure | None:
        """Why a contender is not to be timed: it is wrong, or cannot be checked. Calls it in both directions."""
        answer = self._answer(contender)
        if not any(map(len, answer.index)):
            return Failure("not checked: at every location some taps lie beyond the map, where it is known to differ")
        outputs, gradients = contender.forward_backward(_scatter_cotangents(contender, answer))
        *features, weight, bias = gradients
        compared = {
            "its output": (_select(contender, contender.forward(), answer), answer.outputs),
            "its output under autograd": (_select(contender, outputs, answer), answer.outputs),
            "its gradient to the features": ([level[:, answer.channels] for level in features], answer.features),
            "its gradient to the weight": ([weight[:, answer.channels]], [answer.weight]),
            "its gradient to the bias": ([bias], [answer.bias]),
        }
        tolerance = self._tolerance(contender.weight.dtype) + TOLERANCE_A_CELL * contender.coordinate_error
        for what, (given, right) in compared.items():
            error = _relative_error(given, right)
            if not error <= tolerance:  # NaN is an error too
                reason = f"{what} is wrong by {error:.1e} of the largest value, allowed are {tolerance:.0e}"
                return Failure(reason, is_wrong=True)
        return None

    def _tolerance(self, dtype: torch.dtype) -> float:
        return TF32_TOLERANCE if self._case.tf32 and dtype == torch.float32 else TOLERANCES[dtype]

    def _answer(self, contender: Contender) -> Answer:
        key = (contender.boxes is self._operands.boxes, contender.clamps)
        if key not in self._answers:
            self._answers[key] = _right_answer(self._case, self._operands, contender.boxes, inside=contender.clamps)
        return self._answers[key]


def _right_answer(case: OperatorCase, operands: Operands, boxes: Sequence[Tensor], *, inside: bool) -> Answer:
    """By the reference. `inside`: only at locations all of whose taps lie on the map."""
    index = [
        _spread_locations(_taps_inside(level, case.kernel_size, stride), inside=inside)
        for level, stride in zip(boxes, case.strides)
    ]
    chosen = [level.flatten(1, 2)[:, at] for level, at in zip(boxes, index)]
    cotangents = [level[:, at].double() for level, at in zip(operands.cotangents, index)]
    features = [level.double() for level in operands.features]
    weight, bias = operands.weight.double(), operands.bias.double()
    channels = torch.linspace(0, case.in_channels - 1, CHANNELS, device=weight.device).long().unique()
    with torch.no_grad():
        rows = reference.forward(features, chosen, weight, bias, case.strides)
    leaves = [level[:, channels].requires_grad_() for level in (*features, weight)]
    part = reference.forward(leaves[:-1], chosen, leaves[-1], None, case.strides)
    flat = torch.cat([level.flatten(0, 1) for level in cotangents])
    *feature_gradients, weight_gradient = torch.autograd.grad(part, leaves, flat)
    outputs = rows.split([case.batch * len(at) for at in index])
    return Answer(
        index=index,
        cotangents=cotangents,
        outputs=[level.unflatten(0, (case.batch, -1)) for level in outputs],
        channels=channels,
        features=feature_gradients,
        weight=weight_gradient,
        bias=flat.sum(0),
    )


def _taps_inside(boxes: Tensor, kernel_size: int, stride: int) -> Tensor:
    """(H W,) bool: whether between the centres of the map's outermost cells, in all images."""
    height, width = boxes.shape[1:3]
    y, x = sampling_points(boxes, kernel_size, stride)
    inside_y = ((y >= 0.5) & (y <= height - 0.5)).all(-1)
    inside_x = ((x >= 0.5) & (x <= width - 0.5)).all(-1)
    return (inside_y & inside_x).all(0).flatten()


def _spread_locations(is_inside: Tensor, *, inside: bool) -> Tensor:
    """Sorted indices (r,) from the first to the last of either kind, or of those inside alone."""
    kinds = [is_inside] if inside else [is_inside, ~is_inside]
    chosen = [_spread(kind.nonzero()[:, 0]) for kind in kinds]
    return torch.cat(chosen).sort().values


def _spread(index: Tensor) -> Tensor:
    """At most LOCATIONS of them, evenly."""
    if len(index) <= LOCATIONS:
        return index
    return index[torch.linspace(0, len(index) - 1, LOCATIONS, device=index.device).long()]


def _scatter_cotangents(contender: Contender, answer: Answer) -> list[Tensor]:
    """Zero but at the compared locations, as the contender's outputs."""
    rows = []
    for level, at, cotangents in zip(contender.boxes, answer.index, answer.cotangents):
        num_images, height, width, _ = level.shape
        dense = contender.bias.new_zeros(num_images, height * width, len(contender.bias))
        dense[:, at] = cotangents.to(dense.dtype)
        rows.append(dense)
    return contender.like_outputs(rows)


def _select(contender: Contender, outputs: Sequence[Tensor], answer: Answer) -> list[Tensor]:
    """(N, r, O) a level."""
    return [contender.rows(level)[:, at] for level, at in zip(outputs, answer.index)]


def _relative_error(given: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Largest difference over all levels, of the largest right value."""
    largest = max(float(level.abs().max()) for level in right if level.numel())
    return max(float((a.double() - b).abs().max()) for a, b in zip(given, right) if b.numel()) / largest
