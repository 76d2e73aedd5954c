"""What a study's runs say: means over seeds beside the paper's figures, and whether its claims hold.

A claim is one or more sums of metrics over rows that should be positive (config/study.py). They are taken seed by
seed; with two or more seeds their 95 % confidence intervals (Student's t, paired by seed) decide: a claim holds where
all of them lie above zero, and fails where one lies below.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from aligncli.config import Claim, Scale, Study
from aligncli.engine.run_folder import RunFolder, read_json, training_seconds
from aligncli.engine.study_plan import Plan
from aligncli.errors import CheckpointError

Verdict = Literal["holds", "within noise", "does not hold", "undefined"]
# Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom, as many as MAX_SEEDS needs
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
    *(2.040, 2.037, 2.035, 2.032, 2.030, 2.028, 2.026, 2.024, 2.023, 2.021),
    *(2.020, 2.018, 2.017, 2.015, 2.014, 2.013, 2.012, 2.011, 2.010),
)


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

    @property
    def measured(self) -> bool:
        """False for a row that is cited, or not run at this scale."""
        return bool(self.by_seed)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the means at the top level as well."""
        values = asdict(self)
        label, mean = values.pop("label"), values.pop("mean")
        return {"row": label, "name": values.pop("name"), **mean, **values}


@dataclass(frozen=True)
class ClaimResult:
    """One claim. `margin` is the mean over seeds of the sum whose interval reaches lowest, `noise` its half width.

    With one seed there is no noise to compare with: `noise` is NaN and the sign alone decides. A claim on a metric
    that a run does not have, such as the AP of objects that no image shows, is undefined.
    """

    text: str
    metric: str
    holds: bool
    verdict: Verdict
    margin: float
    noise: float
    paper_margin: float
    seeds: int


@dataclass(frozen=True)
class StudyResult:
    """A table, ours and the paper's."""

    study: str
    table: str
    title: str
    scale: Scale
    seeds: int
    metrics: tuple[str, ...]
    rows: tuple[RowResult, ...]
    claims: tuple[ClaimResult, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain data; each row has its metrics at the top level as well."""
        claims = [asdict(claim) for claim in self.claims]
        return {
            "study": self.study,
            "table": self.table,
            "title": self.title,
            "scale": self.scale,
            "seeds": self.seeds,
            "rows": [row.to_json() for row in self.rows],
            "claims": claims,
        }


def collect(
    study: Study,
    plan: Plan,
    *,
    scale: Scale,
    seeds: int,
    read: Callable[[Path], Mapping[str, float]] | None = None,
) -> StudyResult:
    """Read the finished runs of a study.

    Args:
        read: from a run's folder to its metrics; without it, those of its evaluation.

    Raises CheckpointError where a run is missing, or is another training than the row's.
    """
    rows = []
    for row in study.rows:
        jobs = {seed: plan.runs[study.name, row.name, seed] for seed in range(seeds) if scale in row.recipes}
        for job in jobs.values():
            if not job.is_finished():
                raise CheckpointError(f"{job.run_dir} does not hold row {row.name!r} of study {study.name!r}, finished")
        by_seed = {seed: (read or read_metrics)(job.run_dir) for seed, job in jobs.items()}
        times = [training_seconds(job.run_dir) for job in jobs.values()]
        result = row_result(row.name, row.label, by_seed, row.paper)
        seconds = statistics.fmean(times) if times and all(times) else math.nan
        rows.append(replace(result, detail=row.detail, cited=row.cited, seconds=seconds))
    by_name = {row.name: row for row in rows}
    baselines = {row.name: by_name[row.baseline] for row in study.rows if row.baseline}
    compared = [
        replace(row, delta=compare(row, baselines[row.name], study.metrics[0])) if row.name in baselines else row
        for row in rows
    ]
    claims = [judge(claim, rows) for claim in study.claims]
    return StudyResult(
        study=study.name,
        table=study.table,
        title=study.title,
        scale=scale,
        seeds=seeds,
        metrics=study.metrics,
        rows=tuple(compared),
        claims=tuple(claim for claim in claims if claim is not None),
    )


def claims_of(results: Sequence[StudyResult]) -> list[tuple[str, ClaimResult]]:
    """All claims of several studies, each with its table."""
    return [(result.table, claim) for result in results for claim in result.claims]


def count_verdicts(claims: Sequence[ClaimResult]) -> str:
    """How many claims came out how, in words. With one seed the sign alone decides, so nothing is noise."""
    counts = Counter(claim.verdict for claim in claims)
    told = f"{counts['holds']} of {len(claims)} claims hold, {counts['within noise']} are within noise, "
    told += f"{counts['does not hold']} do not hold"
    return told + (f", {counts['undefined']} are undefined" if counts["undefined"] else "")


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


def read_metrics(run_dir: Path) -> dict[str, float]:
    """The metrics of a run's evaluation, percent; NaN where undefined."""
    metrics = read_json(RunFolder(run_dir).evaluation_path)["metrics"]
    return {name: math.nan if value is None else value for name, value in metrics.items()}


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


def judge(claim: Claim, rows: Sequence[RowResult]) -> ClaimResult | None:
    """The claim on what was measured; None where one of its rows was not run at this scale."""
    by_name = {row.name: row for row in rows}
    involved = {name for weights in claim.weights for name in weights}
    if not all(by_name[name].measured for name in involved):
        return None
    sums = [paired_sums(weights, by_name, claim.metric) for weights in claim.weights]
    margin, noise = min(((mean(values), half_width(values)) for values in sums), key=_lowest)
    verdict = _verdict(sums)
    papers = [paper_sum(weights, by_name, claim.metric) for weights in claim.weights]
    return ClaimResult(
        text=claim.text,
        metric=claim.metric,
        holds=verdict == "holds",
        verdict=verdict,
        margin=margin,
        noise=noise,
        paper_margin=min(papers),
        seeds=len(sums[0]),
    )


def _verdict(sums: Sequence[Sequence[float]]) -> Verdict:
    """All of a claim's sums have to lie above zero, beyond their noise."""
    intervals = [(mean(values), 0.0 if len(values) < 2 else half_width(values)) for values in sums]
    if any(math.isnan(middle) for middle, _ in intervals):
        return "undefined"
    if all(middle > noise for middle, noise in intervals):
        return "holds"
    below = any(middle < -noise for middle, noise in intervals)
    return "does not hold" if below or len(sums[0]) < 2 else "within noise"


def _lowest(interval: tuple[float, float]) -> float:
    """Where an interval of a middle and half a width begins; one that is undefined comes before all others."""
    middle, noise = interval
    return -math.inf if math.isnan(middle) else middle - (0.0 if math.isnan(noise) else noise)


def paired_sums(weights: Mapping[str, float], rows: Mapping[str, RowResult], metric: str) -> list[float]:
    """The claim's sum for every seed."""
    seeds = rows[next(iter(weights))].by_seed
    return [sum(weight * rows[name].by_seed[seed][metric] for name, weight in weights.items()) for seed in seeds]


def paper_sum(weights: Mapping[str, float], rows: Mapping[str, RowResult], metric: str) -> float:
    """The same sum of the paper's figures; NaN where it gives none."""
    return sum(weight * rows[name].paper.get(metric, math.nan) for name, weight in weights.items())


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % confidence interval of the mean; NaN for one value, and where a value is NaN."""
    return T_95[len(values) - 2] * deviation(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; NaN for one value, and where a value is NaN."""
    defined = len(values) > 1 and not any(map(math.isnan, values))  # which `statistics.stdev` cannot take
    return statistics.stdev(values) if defined else math.nan


def mean(values: Sequence[float]) -> float:
    """Mean over seeds; NaN where there is none, and where a value is NaN."""
    return statistics.fmean(values) if values else math.nan
