"""What a study's runs say: means over seeds beside the paper's figures, and whether its claims hold.

A claim is a sum of metrics over rows that should be positive (config/study.py). It is taken seed by seed;
with two or more seeds its 95 % confidence interval (Student's t, paired by seed) decides.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from aligncli.config import Claim, Scale, Study
from aligncli.engine.run_folder import RunFolder, read_json, training_seconds
from aligncli.engine.study_plan import Plan
from aligncli.errors import CheckpointError

Verdict = Literal["holds", "within noise", "does not hold"]
# Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom; 1.96 beyond
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


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
    """One claim. `margin` is the smallest of its sums (mean over seeds), `noise` the half width of its interval.

    With one seed there is no noise to compare with: `noise` is NaN and the sign alone decides.
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
    verdicts = [claim.verdict for claim in claims]
    hold, unclear, fail = (verdicts.count(verdict) for verdict in ("holds", "within noise", "does not hold"))
    return f"{hold} of {len(claims)} claims hold, {unclear} are within noise, {fail} do not hold"


def compare(row: RowResult, baseline: RowResult, metric: str) -> Delta:
    """What `row` gains on `baseline`, where both were measured."""
    weights = {row.name: 1.0, baseline.name: -1.0}
    rows = {row.name: row, baseline.name: baseline}
    gains = paired_sums(weights, rows, metric) if row.measured and baseline.measured else []
    return Delta(
        against=baseline.name,
        mean=statistics.fmean(gains) if gains else math.nan,
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
        mean={metric: statistics.fmean(column) for metric, column in columns.items()},
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
    weakest = min(sums, key=statistics.fmean)
    margin, noise = statistics.fmean(weakest), half_width(weakest)
    papers = [paper_sum(weights, by_name, claim.metric) for weights in claim.weights]
    return ClaimResult(
        text=claim.text,
        metric=claim.metric,
        holds=margin > 0 and not abs(margin) <= noise,
        verdict="within noise" if abs(margin) <= noise else "holds" if margin > 0 else "does not hold",
        margin=margin,
        noise=noise,
        paper_margin=min(papers),
        seeds=len(weakest),
    )


def paired_sums(weights: Mapping[str, float], rows: Mapping[str, RowResult], metric: str) -> list[float]:
    """The claim's sum for every seed."""
    seeds = rows[next(iter(weights))].by_seed
    return [sum(weight * rows[name].by_seed[seed][metric] for name, weight in weights.items()) for seed in seeds]


def paper_sum(weights: Mapping[str, float], rows: Mapping[str, RowResult], metric: str) -> float:
    """The same sum of the paper's figures; NaN where it gives none."""
    return sum(weight * rows[name].paper.get(metric, math.nan) for name, weight in weights.items())


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % confidence interval of the mean; NaN for one value."""
    if len(values) < 2:
        return math.nan
    quantile = T_95[len(values) - 2] if len(values) - 2 < len(T_95) else 1.96
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds; NaN for one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan
