"""Finds the first step whose losses or gradient are not finite, without waiting for the device at every step.

Losses stay on the device until somebody looks, at logged and saved steps. Then all steps since the last look
are checked, and where they are sound, the state is copied to the CPU: what a replay starts from lies less than
`schedule.log_every` steps before the step that broke. The price is a copy of weights and optimizer in memory.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GRADIENT = "grad_norm"


@dataclass(frozen=True)
class Snapshot:
    """A training state after `iteration` steps, on the CPU, that later steps do not change."""

    iteration: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class BrokenStep:
    """The first step that is not finite, and the way to it: `losses` and `rates` of each step from the snapshot on."""

    before: Snapshot
    losses: tuple[dict[str, float], ...]
    rates: tuple[float, ...]

    @property
    def iteration(self) -> int:
        """Number of the broken step."""
        return self.before.iteration + len(self.losses)

    def describe(self) -> str:
        """`adm_box loss is nan at iteration 8 (lr 0.001)`."""
        return f"{describe_losses(self.losses[-1])} at iteration {self.iteration} (lr {self.rates[-1]:g})"


class NotFiniteError(Exception):
    """A step broke; whoever catches it knows where to keep `step`."""

    def __init__(self, step: BrokenStep) -> None:
        super().__init__(step.describe())
        self.step = step


class LossWatch:
    """The losses since the last look.

    Args:
        snapshot: copies the state that training is in now. scaled: fp16, whose scaler skips a step with a
            gradient that overflows, so that this is business as usual.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], *, scaled: bool) -> None:
        self._snapshot = snapshot
        self._scaled = scaled
        self._before = snapshot()
        self._unseen: list[tuple[float, dict[str, Tensor]]] = []

    def add(self, losses: Mapping[str, Tensor], *, lr: float) -> None:
        """A step has been taken; its losses may still be under way on the device."""
        self._unseen.append((lr, dict(losses)))

    def look(self) -> dict[str, float]:
        """The newest step's losses as numbers, with their sum; none where there was no step since the last look.

        Raises NotFiniteError for the first broken step.
        """
        if not self._unseen:
            return {}
        rates = tuple(lr for lr, _ in self._unseen)
        steps = tuple(numbers(losses) for _, losses in self._unseen)
        for count, losses in enumerate(steps, start=1):
            if not is_finite(losses, scaled=self._scaled):
                raise NotFiniteError(BrokenStep(self._before, steps[:count], rates[:count]))
        self._before = self._snapshot()
        self._unseen = []
        return {"loss": sum(value for name, value in steps[-1].items() if name != GRADIENT)} | steps[-1]


def is_finite(losses: Mapping[str, float], *, scaled: bool) -> bool:
    """Whether a step leaves sound weights behind."""
    return all(math.isfinite(value) for name, value in losses.items() if not (scaled and name == GRADIENT))


def describe_losses(losses: Mapping[str, float]) -> str:
    """`adm_box loss is nan, grad_norm is inf`: those that are not finite."""
    return ", ".join(
        f"{name}{'' if name == GRADIENT else ' loss'} is {value}"
        for name, value in losses.items()
        if not math.isfinite(value)
    )


def detached(value: Any) -> Any:
    """A copy on the CPU of tensors in mappings and sequences."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case Mapping():
            return {key: detached(item) for key, item in value.items()}
        case list():
            return [detached(item) for item in value]
        case tuple():
            return tuple(detached(item) for item in value)
        case _:
            return value


def numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """A step's losses, with one wait for the device."""
    values = torch.stack([value.float().reshape(()) for value in losses.values()]).tolist()
    return dict(zip(losses, values))
