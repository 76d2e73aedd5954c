"""Rows of a study: their metrics seed by seed, means and spreads, and what one gains on another."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Delta:
    """What a row gains on another in the study's first metric, paired by seed; NaN where undefined."""

    against: str  # the other row's name
    mean: float
    spread: float
    paper: float


@dataclass(frozen=True)
class RowResult:
    """One row: metrics in percent, a mean and a standard deviation over seeds (NaN where undefined).

    `seconds` is the wall time of its trainings, the mean over seeds, where it is known.
    """

    name: str
    label: str
    mean: dict[str, float]
    spread: dict[str, float]
    by_seed: dict[int, dict[str, float]]
    paper: dict[str, float]
    detail: str = ""
    cited: bool = False
    seconds: float = math.nan
    delta: Delta | None = None
    runs: dict[int, str] = field(default_factory=dict)  # the folders' names, by seed

    @property
    def measured(self) -> bool:
        """False for a row that is cited, or not run at this scale."""
        return bool(self.by_seed)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the means at the top level as well."""
        values = asdict(self)
        label, mean = values.pop("label"), values.pop("mean")
        return {"row": label, "name": values.pop("name"), **mean, **values}


def row_result(
    name: str, label: str, by_seed: Mapping[int, Mapping[str, float]], paper: Mapping[str, float]
) -> RowResult:
    """Mean and standard deviation over seeds; the latter is NaN for one seed."""
    names = next(iter(by_seed.values())).keys() if by_seed else ()
    columns = {metric: [values[metric] for values in by_seed.values()] for metric in names}
    return RowResult(
        name=name,
        label=label,
        mean={metric: mean(column) for metric, column in columns.items()},
        spread={metric: deviation(column) for metric, column in columns.items()},
        by_seed={seed: dict(values) for seed, values in by_seed.items()},
        paper=dict(paper),
    )


def compare(row: RowResult, baseline: RowResult, metric: str) -> Delta:
    """What `row` gains on `baseline`, where both were measured."""
    weights = {row.name: 1.0, baseline.name: -1.0}
    rows = {row.name: row, baseline.name: baseline}
    gains = paired_sums(weights, rows, metric) if row.measured and baseline.measured else []
    return Delta(
        against=baseline.name,
        mean=mean(gains),
        spread=deviation(gains),
        paper=paper_sum(weights, rows, metric),
    )


def paired_sums(weights: Mapping[str, float], rows: Mapping[str, RowResult], metric: str) -> list[float]:
    """The claim's sum for every seed."""
    seeds = rows[next(iter(weights))].by_seed
    return [sum(weight * rows[name].by_seed[seed][metric] for name, weight in weights.items()) for seed in seeds]


def paper_sum(weights: Mapping[str, float], rows: Mapping[str, RowResult], metric: str) -> float:
    """The same sum of the paper's figures; NaN where it gives none."""
    return sum(weight * rows[name].paper.get(metric, math.nan) for name, weight in weights.items())


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; NaN for one value, and where a value is NaN."""
    defined = len(values) > 1 and not any(map(math.isnan, values))  # which `statistics.stdev` cannot take
    return statistics.stdev(values) if defined else math.nan


def mean(values: Sequence[float]) -> float:
    """Mean over seeds; NaN where there is none, and where a value is NaN."""
    return statistics.fmean(values) if values else math.nan
