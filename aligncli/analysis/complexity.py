"""How large a detector is: parameters, and operations of one forward pass.

A multiply-add counts as 2 FLOPs (divide by 2 for the MACs that many papers call FLOPs). Convolutions,
RoIConv and matrix products count; normalisation, activation, sampling and post-processing do not, as is
usual. Nothing is computed: fake tensors carry shapes only, so the paper's R101 model at 800 x 1333 takes
seconds and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode


class RawForward(Protocol):
    """A detector, as far as counting is concerned: an `nn.Module` with everything up to post-processing."""

    def raw_forward(self, pixels: Tensor, /) -> object:
        """Backbone, neck and heads on (N, 3, H, W), without any shape that depends on values."""
        ...


@dataclass(frozen=True)
class Parameters:
    """Number of parameter elements; `trainable` leaves out the frozen ones."""

    total: int
    trainable: int


def count_parameters(model: nn.Module) -> Parameters:
    """Elements of all parameters, each shared one once; buffers are not parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Parameters(total=sum(size for size, _ in sizes), trainable=sum(size for size, trains in sizes if trains))


def count_flops(detector: RawForward, height: int, width: int, *, training: bool = False) -> dict[str, int]:
    """FLOPs of inference on one image of `height` x `width` input pixels, by top-level module.

    The values add up to the whole; modules without any are left out, and what runs outside of any module's
    forward is under "other". The detector is counted in eval mode and left as it was. `training`: the forward pass of
    a training step instead, which differs where proposals are sampled.
    """
    module = cast("nn.Module", detector)
    counter = FlopCounterMode(display=False)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),  # parameters are real, whatever follows is not
        torch.no_grad(),
        _in_mode(module, training=training),
        counter,
    ):
        _Whole(module)(torch.empty(1, 3, height, width, device=next(module.parameters()).device))
    totals = {name: sum(operations.values()) for name, operations in counter.get_flop_counts().items()}
    by_module = _by_top_level(totals, [name for name, _ in module.named_children()])
    by_module["other"] = counter.get_total_flops() - sum(by_module.values())
    return {name: flops for name, flops in by_module.items() if flops}


class _Whole(nn.Module):
    """Gives the counter a root, so that it names modules by their path."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> Any:
        return cast("Any", self.detector).raw_forward(pixels)


def _by_top_level(totals: dict[str, int], names: list[str]) -> dict[str, int]:
    """Sum the outermost counted modules below each top-level one: a ModuleList is not counted itself."""
    root = f"{_Whole.__name__}.detector"
    counted = {path.removeprefix(root + "."): flops for path, flops in totals.items() if path.startswith(root + ".")}
    by_module = dict.fromkeys(names, 0)
    for path, flops in counted.items():
        parts = path.split(".")
        if not any(".".join(parts[:depth]) in counted for depth in range(1, len(parts))):
            by_module[parts[0]] += flops
    return by_module


@contextmanager
def _in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """That mode inside; afterwards every module has its own mode back (frozen ones may differ)."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, before in modes:
            module.training = before
