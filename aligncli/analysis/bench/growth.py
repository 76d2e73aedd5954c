"""How a training step grows with one quantity: `aligncli bench train --vary size --vary batch ...`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aligncli.analysis.bench.steps import TrainCase
from aligncli.analysis.bench.train_report import TrainReport
from aligncli.errors import UserError

# What can be varied, what it is, and the values that are taken unless others are given
QUANTITIES = ("size", "batch", "objects", "classes")
TITLES = {
    "size": "side of the image, pixels",
    "batch": "images a step",
    "objects": "ground truths an image",
    "classes": "classes",
}
VALUES: Mapping[str, tuple[int, ...]] = {
    "size": (256, 384, 512, 640),
    "batch": (1, 2, 4),
    "objects": (1, 10, 100, 1000),
    "classes": (1, 20, 80, 320),
}


@dataclass(frozen=True)
class Sweep:
    """A quantity, and its values in growing order."""

    quantity: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Line:
    """One contender at the values of a sweep: median seconds of a step, and peak bytes; None where unknown."""

    name: str
    seconds: tuple[float | None, ...]
    peak_memory: tuple[int | None, ...]


@dataclass(frozen=True)
class Growth:
    """What came out of a sweep; no reports where it was read from a file."""

    sweep: Sweep
    lines: tuple[Line, ...]
    reports: Sequence[TrainReport] = ()

    def exponents(self, line: Line) -> tuple[float | None, float | None]:
        """p of the best fit seconds ~ quantity ** p, and that of bytes."""
        return _slope(self.sweep.values, line.seconds), _slope(self.sweep.values, line.peak_memory)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the exponents and all reports."""
        fits = {line.name: dict(zip(("seconds", "peak_memory"), self.exponents(line))) for line in self.lines}
        return {
            "sweep": dataclasses.asdict(self.sweep),
            "lines": [dataclasses.asdict(line) for line in self.lines],
            "exponents": fits,
            "reports": [report.to_json() for report in self.reports],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Growth:
        """The sweep and its lines, to draw several files in one picture."""
        lines = [Line(line["name"], tuple(line["seconds"]), tuple(line["peak_memory"])) for line in document["lines"]]
        return cls(Sweep(document["sweep"]["quantity"], tuple(document["sweep"]["values"])), tuple(lines))


def parse_sweep(text: str) -> Sweep:
    """`objects`, or `objects=1,10,100`. Raises UserError."""
    quantity, given, values = text.partition("=")
    if quantity not in QUANTITIES:
        raise UserError(f"--vary {quantity!r} is unknown: choose from {', '.join(QUANTITIES)}")
    if not given:
        return Sweep(quantity, VALUES[quantity])
    numbers = [int(value) if value.strip().isdecimal() else -1 for value in values.split(",")]
    lowest = 0 if quantity == "objects" else 1
    if min(numbers) < lowest or len(set(numbers)) < 2:
        raise UserError(f"--vary {text}: expected two whole numbers or more from {lowest} on, as {quantity}=1,10,100")
    return Sweep(quantity, tuple(sorted(set(numbers))))


def varied(case: TrainCase, quantity: str, value: int) -> TrainCase:
    """The case with one quantity of another value; images are square where it is their size."""
    match quantity:
        case "size":
            return replace(case, size=(value, value))
        case "batch":
            return replace(case, batch=value)
        case "objects":
            return replace(case, num_objects=value)
        case _:
            return replace(case, num_classes=value)


def measure_growth(case: TrainCase, sweep: Sweep, measure: Callable[[TrainCase, str], TrainReport]) -> Growth:
    """`measure` each value in turn; it is given the case, and a label for its progress."""
    quantity = sweep.quantity
    reports = [measure(varied(case, quantity, value), f"{quantity} {value}, ") for value in sweep.values]
    by_name = [{result.name: result for result in report.results} for report in reports]
    lines = [
        Line(
            name,
            tuple(at[name].seconds.median if at[name].samples else None for at in by_name),
            tuple(at[name].peak_memory for at in by_name),
        )
        for name in by_name[0]
    ]
    return Growth(sweep, tuple(lines), reports)


def _slope(values: Sequence[int], measured: Sequence[float | None]) -> float | None:
    """Of a line through the logarithms, by least squares; None without two points."""
    pairs = [(math.log(x), math.log(y)) for x, y in zip(values, measured, strict=True) if x and y]
    if len(pairs) < 2:
        return None
    x, y = np.array(pairs).T
    return float(np.polyfit(x, y, 1)[0])
