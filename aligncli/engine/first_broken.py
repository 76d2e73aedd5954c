"""Which module's output, and which gradient, is the first in one step that is not finite.

Hooks look at every tensor, which waits for the device each time: for a replay, not for training.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class FirstBroken:
    """What was found so far, empty where all is finite: a weight before the step, an output, a gradient."""

    weight: str = ""
    output: str = ""
    gradient: str = ""

    def describe(self) -> str:
        """One line about the first of them."""
        if self.weight:
            return f"weight {self.weight} is not finite before the step"
        if self.output:
            return f"first output that is not finite: {self.output}"
        if self.gradient:
            return f"every output is finite; first gradient that is not: {self.gradient}"
        return "every module's output and every gradient is finite"


@contextmanager
def watching(model: nn.Module) -> Iterator[FirstBroken]:
    """Hooks on all modules and parameters of `model`, for the forward and backward passes inside the block.

    A module comes after those inside it, so the first one named is the innermost.
    """
    found = FirstBroken(weight=next((name for name, value in model.state_dict().items() if not _finite(value)), ""))

    def gradient_hook(label: str) -> Callable[[Tensor], None]:
        def look(gradient: Tensor) -> None:
            if not found.gradient and not _finite(gradient):
                found.gradient = label

        return look

    def output_hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            del inputs
            label = f"{name} ({type(module).__name__})"
            for tensor in tensors_in(output):
                if not found.output and not _finite(tensor):
                    found.output = label
                if tensor.requires_grad:
                    tensor.register_hook(gradient_hook(f"of the output of {label}"))

        return look

    handles = [module.register_forward_hook(output_hook(name)) for name, module in model.named_modules() if name]
    handles += [x.register_hook(gradient_hook(f"of {name}")) for name, x in model.named_parameters() if x.requires_grad]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> Iterable[Tensor]:
    """All tensors in mappings, sequences and dataclasses."""
    match value:
        case Tensor():
            yield value
        case Mapping():
            for item in value.values():
                yield from tensors_in(item)
        case list() | tuple():
            for item in value:
                yield from tensors_in(item)
        case _ if is_dataclass(value):
            for field in fields(value):
                yield from tensors_in(getattr(value, field.name))


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
