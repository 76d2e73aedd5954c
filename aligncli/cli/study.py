"""`aligncli pilot` and `aligncli ablate`: the paper's tables, ours beside its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.cli.render import Output
    from aligncli.config import Study
    from aligncli.engine.study_plan import Plan
    from aligncli.engine.study_results import ClaimResult, RowResult, StudyResult

PILOT, PILOT_ROI_CONV = "pilot", "pilot_roiconv"

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="alignment, assignment, kernel, aligndet, or all.")]
ScaleChoice = Annotated[
    options.Scale, typer.Option("--scale", help="small: embedded shapes, a CPU. coco: the paper's. photo: your --data.")
]
Seeds = Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Repeat with N seeds: mean and spread.")]
Jobs = Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="Trainings side by side.")]
StudyFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder of the runs; the same one again goes on with them.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and train nothing.")]
RoIConv = Annotated[bool, typer.Option("--roiconv", help="Table 2: one level with RoIConv on predefined anchors.")]
Download = Annotated[bool, typer.Option("--download", help="Allow ImageNet weights to be fetched.")]


@dataclass(frozen=True)
class Asked:
    """What the command line says, the same for both commands."""

    names: Sequence[str]
    scale: options.Scale
    seeds: int
    data: Path | None
    out: Path
    jobs: int
    device: str
    assignments: list[str]
    download: bool
    dry_run: bool


def pilot(
    *,
    roiconv: RoIConv = False,
    scale: ScaleChoice = options.Scale.small,
    seeds: Seeds = 1,
    data: options.DataFolder = None,
    out: StudyFolder = Path("studies"),
    jobs: Jobs = 1,
    device: options.Device = "auto",
    assignments: options.Assignments = None,
    download: Download = False,
    offline: options.Offline = False,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Table 1: one level instead of a pyramid, two-stage against one-stage; --roiconv: Table 2.

    Stop it with Ctrl-C and start it again: finished rows are not trained twice. Example:
    `aligncli pilot --roiconv --seeds 3 --jobs 2`.
    """
    names = (PILOT_ROI_CONV,) if roiconv else (PILOT,)
    download = options.may_download(download=download, offline=offline)
    asked = Asked(names, scale, seeds, data, out, jobs, device, assignments or [], download, dry_run)
    _study(asked, json=json)


def ablate(
    study: StudyName,
    *,
    scale: ScaleChoice = options.Scale.small,
    seeds: Seeds = 1,
    data: options.DataFolder = None,
    out: StudyFolder = Path("studies"),
    jobs: Jobs = 1,
    device: options.Device = "auto",
    assignments: options.Assignments = None,
    download: Download = False,
    offline: options.Offline = False,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Tables 3 to 6: alignment variants, label assignment, RoIConv designs, AlignDet against RetinaNet.

    Stop it with Ctrl-C and start it again: finished rows are not trained twice, and tables share rows.
    Example: `aligncli ablate alignment --seeds 3 --jobs 2`.
    """
    from aligncli.catalog import study_names

    pilots = (PILOT, PILOT_ROI_CONV)
    names = tuple(name for name in study_names() if name not in pilots) if study == "all" else (study,)
    download = options.may_download(download=download, offline=offline)
    asked = Asked(names, scale, seeds, data, out, jobs, device, assignments or [], download, dry_run)
    _study(asked, json=json)


def _study(asked: Asked, *, json: bool) -> None:
    from aligncli.catalog import load_study
    from aligncli.cli.render import Output
    from aligncli.overrides import parse_assignments

    scale = asked.scale.value
    if (asked.data is None) == (scale != "small"):
        raise UserError(f"--scale {scale} " + ("needs --data FOLDER" if asked.data is None else "takes no --data"))
    studies = [load_study(name) for name in asked.names]
    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.launch import LocalLauncher, devices_for, threads_for
        from aligncli.engine.study_plan import make_plan
        from aligncli.engine.study_results import collect

    changes = parse_assignments(asked.assignments)
    plan = make_plan(studies, scale=scale, seeds=asked.seeds, folder=asked.out, data=asked.data, changes=changes)
    if asked.dry_run:
        _show_plan(output, plan)
        return
    launcher = LocalLauncher(asked.jobs, devices_for(asked.device), threads_for(asked.jobs), asked.download)
    with output.progress(waiting="starting the trainings") as reporter:
        if plan.pretraining:
            launcher.run("pre-training", plan.pretraining, reporter)
        launcher.run("training", plan.trainings, reporter)
    results = [collect(study, plan, scale=scale, seeds=asked.seeds) for study in studies]
    for study, result in zip(studies, results, strict=True):
        _show(output, study, result)
    values = [result.to_json() for result in results]
    output.data(values[0] if len(values) == 1 else {"studies": values})


def _show_plan(output: Output, plan: Plan) -> None:
    jobs = (*plan.pretraining, *plan.trainings)
    rows = [
        (job.run_dir.name, job.recipe.schedule.iterations, "finished" if job.is_finished() else "to do") for job in jobs
    ]
    output.table(("run", "iterations", ""), [(name, f"{count:,}", state) for name, count, state in rows])
    left = sum(count for _, count, state in rows if state == "to do")
    output.line(f"{len(rows)} trainings, {left:,} iterations to do")
    output.data([dict(zip(("run", "iterations", "state"), row, strict=True)) for row in rows])


def _show(output: Output, study: Study, result: StudyResult) -> None:
    """The table, ours above the paper's in each row, and the claims."""
    seeds = "one seed" if result.seeds == 1 else f"mean of {result.seeds} seeds, ± standard deviation"
    output.heading(f"{result.table}: {result.title}", f"scale {result.scale}, {seeds}")
    rows = []
    for row in result.rows:
        rows.append((row.label, "ours", *(_ours(row, metric) for metric in result.metrics)))
        if row.paper:
            rows.append(("", "paper", *(_number(row.paper.get(metric, math.nan)) for metric in result.metrics)))
    output.table(("", "", *result.metrics), rows, text_columns=2)
    claims = result.claims
    if claims:
        cells = [(item.text, item.verdict, item.metric, _margin(item), _signed(item.paper_margin)) for item in claims]
        output.table(("claim", "", "metric", "margin", "paper's"), cells, text_columns=3)
    if study.note:
        output.line(study.note)


def _ours(row: RowResult, metric: str) -> str:
    if not row.measured:
        return "-"
    spread = row.spread[metric]
    return _number(row.mean[metric]) + ("" if math.isnan(spread) else f" ±{spread:.1f}")


def _margin(claim: ClaimResult) -> str:
    return _signed(claim.margin) + ("" if math.isnan(claim.noise) else f" ±{claim.noise:.1f}")


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.1f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
