"""A training in a few words, as its own process tells it and as `aligncli watch` reads it from the run folder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 40  # characters
NOT_LOSSES = frozenset({"iteration", "lr", "loss", "grad_norm", "images_per_second", "eta_seconds", "memory"})


@dataclass
class TrainingView:
    """What is known so far. Numbers are NaN, and mappings empty, before their first report."""

    iterations: int = 0
    done: int = 0
    loss: float = math.nan
    parts: dict[str, float] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)  # every total loss that was logged
    lr: float = math.nan
    images_per_second: float = math.nan
    eta_seconds: float = math.nan
    memory: float = math.nan  # bytes
    evaluated: tuple[int, float] | None = None  # iteration, AP in percent

    def add(self, record: Mapping[str, Any]) -> None:
        """A step as the engine's Reporter is told it, or a line of metrics.jsonl."""
        self.done = int(record["iteration"])
        for name in ("lr", "images_per_second", "eta_seconds", "memory"):
            setattr(self, name, record.get(name, getattr(self, name)))
        if "loss" in record:
            self.loss = record["loss"]
            self.history.append(self.loss)
            self.parts = {name: value for name, value in record.items() if name not in NOT_LOSSES}
        average_precision = record.get("evaluation", {}).get("AP")
        if average_precision is not None and not math.isnan(average_precision):
            self.evaluated = (self.done, average_precision)

    def speed(self) -> str:
        """`80.0 images/s  ETA 1:05`."""
        rate = "" if math.isnan(self.images_per_second) else f"{self.images_per_second:.1f} images/s"
        left = "" if math.isnan(self.eta_seconds) else f"ETA {duration(self.eta_seconds)}"
        return "  ".join(text for text in (rate, left) if text)

    def line(self) -> str:
        """All in one line, for logs."""
        parts = f" ({', '.join(_losses(self.parts))})" if len(self.parts) > 1 else ""
        loss = "" if math.isnan(self.loss) else f"loss {self.loss:.3f}{parts}"
        return "  ".join(text for text in (loss, *self._state().values(), self.speed()) if text)

    def rows(self) -> dict[str, str]:
        """The same in rows, for terminals and `watch --once`: the loss with its curve, its parts, the rest."""
        rows = {}
        if not math.isnan(self.loss):
            rows["loss"] = f"{self.loss:.3f}  {sparkline(self.history)}"
        if len(self.parts) > 1:
            rows["parts"] = "  ".join(_losses(self.parts))
        state = "  ".join(self._state().values())
        return rows | ({"state": state} if state else {})

    def _state(self) -> dict[str, str]:
        texts = {}
        if not math.isnan(self.lr):
            texts["lr"] = f"lr {self.lr:.3g}"
        if not math.isnan(self.memory):
            texts["memory"] = f"memory {self.memory / 1e9:.1f} GB"
        if self.evaluated:
            iteration, value = self.evaluated
            texts["AP"] = f"AP {value:.1f} (after {iteration:,})"
        return texts


def duration(seconds: float) -> str:
    """`0:42`, `12:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sparkline(values: Sequence[float], *, width: int = CURVE_WIDTH) -> str:
    """A curve of one character's height: means of equal stretches, on a logarithmic scale where all are positive."""
    # Smaller by a power of two, which bends no curve: sums and differences of the largest numbers stay finite
    finite = [math.ldexp(value, -64) for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    count = min(width, len(finite))
    edges = [len(finite) * step // count for step in range(count + 1)]
    means = [sum(finite[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
    heights = [math.log(mean) for mean in means] if min(means) > 0 else means
    low, high = min(heights), max(heights)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((height - low) * scale)] for height in heights)


def _losses(parts: Mapping[str, float]) -> list[str]:
    return [f"{name.replace('_', ' ')} {value:.3f}" for name, value in parts.items()]
