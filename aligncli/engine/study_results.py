"""What a study's runs say: means over seeds beside the paper's figures, and whether its claims hold."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aligncli.config import Scale, Study
from aligncli.engine.claims import ClaimResult, judge
from aligncli.engine.run_folder import RunFolder, read_json, trained_on, training_seconds
from aligncli.engine.study_plan import Plan
from aligncli.engine.study_rows import RowResult, compare, row_result
from aligncli.errors import CheckpointError


@dataclass(frozen=True)
class StudyResult:
    """A table, ours and the paper's, and what it was made from.

    changes: to every recipe, as by --set. data: a user's folder, or "". machines: what the trainings ran on, as far as
    their folders say.
    """

    study: str
    table: str
    title: str
    scale: Scale
    seeds: int
    metrics: tuple[str, ...]
    rows: tuple[RowResult, ...]
    claims: tuple[ClaimResult, ...] = ()
    changes: dict[str, object] = field(default_factory=dict)
    data: str = ""
    machines: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; each row has its metrics at the top level as well."""
        claims = [asdict(claim) for claim in self.claims]
        return {
            "study": self.study,
            "table": self.table,
            "title": self.title,
            "scale": self.scale,
            "seeds": self.seeds,
            "changes": self.changes,
            "data": self.data or None,
            "trained_on": list(self.machines),
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
        runs = {seed: job.run_dir.name for seed, job in jobs.items()}
        seconds = statistics.fmean(times) if times and all(times) else math.nan
        rows.append(replace(result, detail=row.detail, cited=row.cited, seconds=seconds, runs=runs))
    by_name = {row.name: row for row in rows}
    baselines = {row.name: by_name[row.baseline] for row in study.rows if row.baseline}
    compared = [
        replace(row, delta=compare(row, baselines[row.name], study.metrics[0])) if row.name in baselines else row
        for row in rows
    ]
    claims = [judge(claim, rows) for claim in study.claims]
    machines = {trained_on(job.run_dir) for (name, _, _), job in plan.runs.items() if name == study.name}
    return StudyResult(
        study=study.name,
        table=study.table,
        title=study.title,
        scale=scale,
        seeds=seeds,
        metrics=study.metrics,
        rows=tuple(compared),
        claims=tuple(claim for claim in claims if claim is not None),
        changes=dict(plan.changes),
        data=str(plan.data or ""),
        machines=tuple(sorted(machines - {""})),
    )


def claims_of(results: Sequence[StudyResult]) -> list[tuple[str, ClaimResult]]:
    """All claims of several studies, each with its table."""
    return [(result.table, claim) for result in results for claim in result.claims]


def read_metrics(run_dir: Path) -> dict[str, float]:
    """The metrics of a run's last evaluation, percent; NaN where undefined."""
    run = RunFolder(run_dir)
    if run.evaluation_path.is_file():
        metrics = read_json(run.evaluation_path)["metrics"]
    else:
        metrics = run.read_metrics()[-1]["evaluation"]
    return {name: math.nan if value is None else value for name, value in metrics.items()}
