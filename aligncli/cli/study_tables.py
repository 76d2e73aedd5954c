"""What the studies print: a plan with what it will take, a table with the paper's figures below ours, the claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aligncli.cli.progress import duration
from aligncli.cli.tables import Styled, number, signed

if TYPE_CHECKING:
    from pathlib import Path

    from aligncli.analysis.estimate import Estimate
    from aligncli.cli.render import Output
    from aligncli.cli.tables import Cell
    from aligncli.config import Study
    from aligncli.engine.claims import ClaimResult
    from aligncli.engine.study_plan import Job
    from aligncli.engine.study_results import StudyResult
    from aligncli.engine.study_rows import RowResult

VERDICT_STYLES = {"holds": "green", "does not hold": "red", "within noise": "yellow", "undefined": "yellow"}


def show_plan(
    output: Output, jobs: Sequence[Job], estimates: Mapping[Path, Estimate], *, parallel: int, device: str
) -> None:
    """Every training with its iterations, operations, time and memory; finished ones with the time they took."""
    items = [_plan_item(job, estimates.get(job.run_dir)) for job in jobs]
    rows = [
        (
            str(item["run"]),
            f"{item['iterations']:,}",
            _quantity(item["flops"], 1e15),
            _time(item["seconds"]),
            _quantity(item["memory_bytes"], 2**30),
            str(item["state"]),
        )
        for item in items
    ]
    output.table(("run", "iterations", "PFLOPs", "time", "GiB", ""), rows)
    left = sum(each.seconds for each in estimates.values())
    longest = max((each.seconds for each in estimates.values()), default=0.0)
    count = sum(item["iterations"] for item in items if item["state"] == "to do")
    output.line(f"{len(jobs)} trainings, {count:,} iterations to do")
    if estimates:
        output.line(
            f"about {_time(max(left / parallel, longest))} with {parallel} side by side on {device}: steps of each "
            "network, timed here and scaled by operations; no loading, evaluation or start-up"
        )
        output.line("GiB: weights, gradients, optimizer and what the backward pass keeps of the largest batch")
    output.data(items)


def _plan_item(job: Job, estimate: Estimate | None) -> dict[str, Any]:
    """One training as JSON has it; a finished one has no estimate, but may know the time it took."""
    from aligncli.engine.jobs import iterations
    from aligncli.engine.run_folder import training_seconds

    return {
        "run": job.run_dir.name,
        "iterations": iterations(job),
        "flops": estimate.flops if estimate else math.nan,
        "seconds": estimate.seconds if estimate else training_seconds(job.run_dir) or math.nan,
        "memory_bytes": estimate.memory if estimate else math.nan,
        "state": "to do" if estimate else "finished",
    }


def show_result(output: Output, study: Study, result: StudyResult) -> None:
    """The table, ours above the paper's in each row, and the claims."""
    from aligncli.engine.claims import explain_margins

    seeds = "one seed" if result.seeds == 1 else f"mean of {result.seeds} seeds, ± standard deviation"
    output.heading(f"{result.table}: {result.title}", f"scale {result.scale}, {seeds}")
    compared = any(row.delta for row in result.rows)
    rows: list[Sequence[Cell]] = []
    for row in result.rows:
        if row.cited:
            rows.append((row.label, "cited", *_papers(row, result.metrics), *([""] if compared else []), row.detail))
            continue
        if row.measured:
            ours = (_ours(row, metric) for metric in result.metrics)
            rows.append((row.label, "ours", *ours, *([_delta(row)] if compared else []), row.detail))
        if row.paper:
            delta = signed(row.delta.paper) if row.delta else ""
            label = "" if row.measured else row.label
            rows.append((label, "paper", *_papers(row, result.metrics), *([delta] if compared else []), ""))
    columns = ("", "", *result.metrics, *([f"Δ {result.metrics[0]}"] if compared else []))
    detailed = any(row.detail for row in result.rows)
    output.table(
        (*columns, "as printed") if detailed else columns,
        rows if detailed else [cells[:-1] for cells in rows],
        text_columns=2,
        wrapped_columns=(len(columns),) if detailed else (),
    )
    if result.claims:
        _show_claims(output, result.claims)
    for line in (explain_margins(result.claims) if result.claims else "", _baselines(result), study.note):
        if line:
            output.line(line)


def show_all_claims(output: Output, results: Sequence[StudyResult]) -> None:
    """What several studies say of the paper: a line a claim."""
    from aligncli.engine.claims import count_verdicts
    from aligncli.engine.study_results import claims_of

    claims = claims_of(results)
    seeds = "one seed: the sign alone decides" if results[0].seeds == 1 else f"{results[0].seeds} seeds, paired"
    output.heading(count_verdicts([claim for _, claim in claims]), seeds)
    cells = [
        (table, claim.text, Styled(claim.verdict, VERDICT_STYLES[claim.verdict]), _margin(claim))
        for table, claim in claims
    ]
    output.table(("", "claim", "", "margin"), cells, text_columns=3)


def _show_claims(output: Output, claims: Sequence[ClaimResult]) -> None:
    cells = [
        (
            claim.text,
            Styled(claim.verdict, VERDICT_STYLES[claim.verdict]),
            claim.metric,
            _margin(claim),
            signed(claim.paper_margin),
        )
        for claim in claims
    ]
    output.table(("claim", "", "metric", "margin", "paper's"), cells, text_columns=3)


def _baselines(result: StudyResult) -> str:
    """What the Δ column compares with, once where it is the same for all."""
    labels = {row.name: row.label for row in result.rows}
    names = {row.delta.against: labels[row.delta.against] for row in result.rows if row.delta}
    if not names:
        return ""
    return "Δ: against " + " or ".join(f"“{label}”" for label in names.values())


def _ours(row: RowResult, metric: str) -> str:
    spread = row.spread[metric]
    return number(row.mean[metric]) + ("" if math.isnan(spread) else f" ±{spread:.1f}")


def _papers(row: RowResult, metrics: Sequence[str]) -> list[str]:
    return [number(row.paper.get(metric, math.nan)) for metric in metrics]


def _delta(row: RowResult) -> Cell:
    if row.delta is None:
        return ""
    spread = "" if math.isnan(row.delta.spread) else f" ±{row.delta.spread:.1f}"
    style = "green" if row.delta.mean > 0 else "red" if row.delta.mean < 0 else ""
    return Styled(signed(row.delta.mean) + spread, style)


def _margin(claim: ClaimResult) -> str:
    return signed(claim.margin) + ("" if math.isnan(claim.noise) else f" ±{claim.noise:.1f}")


def _quantity(value: float, unit: float) -> str:
    """Three digits of it, or a dash."""
    if math.isnan(value):
        return "-"
    value /= unit
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    """Minutes and hours for people; days where it takes them."""
    if math.isnan(seconds):
        return "-"
    return f"{seconds / 86_400:,.0f} days" if seconds > 2 * 86_400 else duration(seconds)
