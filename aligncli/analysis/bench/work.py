"""What a call does, by watching it: operations, 2 a multiply-add, and the bytes that they cannot do without.

Convolutions, matrix products, RoIConv (aligncli/ops/operator.py has its rule) and deformable convolution count,
both ways. Each of them reads its operands and writes its results at least once: that is the traffic, from which a
roofline tells whether it is arithmetic or memory that bounds a call (Williams et al. 2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.ops  # noqa: F401  (defines torch.ops.torchvision)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

Shape = Sequence[int]


@dataclass(frozen=True)
class Work:
    """Of a call. traffic: bytes."""

    flops: int
    traffic: int


def deform_conv2d_flops(_features: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """As for a plain convolution: weight (O, C / groups, kh, kw), out_shape (N, O, H, W)."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def deform_conv2d_backward_flops(cotangent: Shape, _features: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Twice the forward pass: the columns' gradient, and the weight's."""
    return 4 * math.prod(cotangent) * math.prod(weight[1:])


def added_product_flops(_total: Shape, left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Of a product (m, k) by (k, n) that is added in place, which torch's own rules leave out."""
    return 2 * left[0] * left[1] * right[1]


RULES: dict[Any, Callable[..., int]] = {
    torch.ops.aten.addmm_: added_product_flops,
    torch.ops.torchvision.deform_conv2d: deform_conv2d_flops,
    torch.ops.torchvision._deform_conv2d_backward: deform_conv2d_backward_flops,
}


def watch_work(call: Callable[[], object]) -> tuple[Work, Any]:
    """The work of a call, and what it returned."""
    counter = FlopCounterMode(display=False, custom_mapping=RULES)
    # The counter is asked first, and breaks composite operators down to those that both know.
    with TrafficMode() as traffic, counter:
        result = call()
    return Work(counter.get_total_flops(), traffic.num_bytes), result


class TrafficMode(TorchDispatchMode):
    """Adds up what the counted operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry or func.overloadpacket in RULES:
            tensors = [*_tensors(args), *_tensors(list((kwargs or {}).values())), *_tensors([result])]
            self.num_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
