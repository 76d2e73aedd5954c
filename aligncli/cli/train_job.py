"""A training as every process of it is told, and how one process takes part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aligncli.cli import options
from aligncli.cli.render import Output

if TYPE_CHECKING:
    from aligncli.catalog import Parts
    from aligncli.config import Recipe
    from aligncli.engine.distributed import World


@dataclass(frozen=True)
class TrainJob:
    """A training as every process of it is told; `code` is the file with the recipe's own parts."""

    recipe: Recipe
    run_dir: Path
    code: Path | None
    device: str
    threads: int | None
    download: bool
    json: bool
    report: bool = True
    debug: bool = False


def run_job(job: TrainJob, parts: Parts, *, resume: bool, world: World | None) -> None:
    """Train in this process, alone or as one of a world's, whose rank 0 tells."""
    from aligncli.engine.process import prepare_process

    options.limit_threads(job.threads)
    prepare_process()
    if world is None or world.is_main:
        _train_and_tell(job, parts, resume=resume, world=world, output=Output(json=job.json))
        return
    from aligncli.engine.train import train as run_training

    run_training(
        job.recipe, job.run_dir, device=job.device, resume=resume, download=job.download, parts=parts, world=world
    )


def _train_and_tell(job: TrainJob, parts: Parts, *, resume: bool, world: World | None, output: Output) -> None:
    from aligncli.cli.describe import shell_path, show_metrics
    from aligncli.cli.progress import duration
    from aligncli.cli.report import report_training
    from aligncli.config.describe import describe_data, describe_model

    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.distributed import ALONE
        from aligncli.engine.train import train as run_training

        device = options.pick_device(job.device)
    recipe, run_dir, world = job.recipe, job.run_dir, world or ALONE
    share = recipe.schedule.batch_size / recipe.schedule.accumulate / world.size
    header = [
        f"recipe: {recipe.name}, {recipe.summary}",
        f"model: {describe_model(recipe.model)}",
        f"data: {describe_data(recipe.data)}",
        f"device: {device}"
        if world.size == 1
        else f"{world.size} processes with {share:g} images each at a time, the first on {device}",
    ]
    with output.progress(header) as reporter:
        result = run_training(
            recipe,
            run_dir,
            device=device,
            resume=resume,
            download=job.download,
            parts=parts,
            reporter=reporter,
            world=world,
        )
    show_metrics(
        output,
        result.metrics,
        title=f"{recipe.name} after {result.iterations:,} iterations, validation split",
        area_bins=recipe.evaluation.area_bins,
        paper=recipe.paper,
    )
    report = report_training(run_dir, device=device, parts=parts, output=output) if job.report else None
    output.line(f"run folder: {run_dir} ({duration(result.seconds)})")
    if report is not None:
        output.line(f"report: {report}")
    output.line("next:")
    needed = f" --code {shell_path(job.code)}" if job.code else ""
    output.line(f"  aligncli eval {shell_path(run_dir)} --per-class{needed}")
    output.line(f"  aligncli predict {shell_path(run_dir)} IMAGE...{needed}")
    output.data(
        {
            "run": str(run_dir),
            "recipe": recipe.name,
            "iterations": result.iterations,
            "seconds": round(result.seconds, 2),
            "report": str(report) if report else None,
            **result.metrics,
        }
    )
