"""`aligncli runs list|show|compare`, and `aligncli errors`: what finished runs tell."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.completion import complete_run
from aligncli.cli.progress import duration
from aligncli.cli.tables import Styled, number, signed

if TYPE_CHECKING:
    from aligncli.cli.render import Output
    from aligncli.cli.tables import Cell
    from aligncli.engine.detections import Comparison, Errors
    from aligncli.engine.run_list import RunSummary

SHOWN_METRICS = ("AP", "AP50", "AP75")
# classification, localisation, both, duplicates, background, missed: the order of engine/detections.py
ERROR_COLUMNS = ("class", "loc.", "both", "dup.", "bg", "missed")

Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the runs are, up to three folders deep.")]
FirstRun = Annotated[Path, typer.Argument(metavar="A", autocompletion=complete_run, help="Run folder.")]
SecondRun = Annotated[
    Path,
    typer.Argument(metavar="B", autocompletion=complete_run, help="Run folder that was evaluated on the same images."),
]
Samples = Annotated[int, typer.Option("--samples", metavar="N", min=100, max=100_000, help="Bootstrap samples.")]
Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Run folders; several are set side by side."),
]


def list_runs(folder: Folder = Path("runs"), *, json: options.Json = False) -> None:
    """List the runs below a folder, the newest first, with what they reached."""
    from aligncli.cli.render import Output

    output = Output(json=json)
    with output.waiting():
        from aligncli.engine.run_list import find_runs

        runs, faults = find_runs(folder)
    for fault in faults:
        output.note(fault)
    rows = [
        (
            str(run.path.relative_to(folder)) if run.path != folder else str(run.path),
            f"{run.iteration:,}" if run.finished else f"{run.iteration:,} of {run.recipe.schedule.iterations:,}",
            run.state,
            *(number(run.metrics.get(name, math.nan)) for name in SHOWN_METRICS),
            "-" if math.isnan(run.seconds) else duration(run.seconds),
            _when(run),
        )
        for run in runs
    ]
    if rows:
        output.table(("run", "steps", "state", *SHOWN_METRICS, "took", "changed"), rows, wrapped_columns=[2])
    else:
        output.line(f"no runs below {folder}: `aligncli train --out {folder / 'first'}` makes one")
    output.data([_plain(run) for run in runs])


def show_run(run: options.Run, *, json: options.Json = False) -> None:
    """Show one run: its recipe, where it was trained, what it reached, which files it has."""
    from aligncli.cli.describe import show_metrics
    from aligncli.cli.render import Output
    from aligncli.config.describe import describe_data, describe_model

    output = Output(json=json)
    with output.waiting():
        from aligncli.engine.run_folder import RunFolder, read_json, reading
        from aligncli.engine.run_list import summarize

        summary = summarize(run)
        path = RunFolder(run).root / "environment.json"
        environment = read_json(path)
        with reading(path):
            hardware = environment.get("hardware", environment["device"])
            trained_on = f"{hardware}, torch {environment['packages']['torch']}, {environment['platform']}"
    recipe = summary.recipe
    output.heading(str(run), recipe.summary)
    output.fields(
        {
            "recipe": recipe.name,
            "model": describe_model(recipe.model),
            "data": describe_data(recipe.data),
            "state": summary.state,
            "trained": f"{summary.iteration:,} of {recipe.schedule.iterations:,} iterations of "
            f"{recipe.schedule.batch_size} images, seed {recipe.seed}",
            "on": trained_on,
            "files": ", ".join(sorted(path.name for path in run.iterdir())),
        }
    )
    if summary.metrics:
        show_metrics(output, summary.metrics, title="", area_bins=recipe.evaluation.area_bins, paper=recipe.paper)
    else:
        output.line("not evaluated yet")
    output.data({**_plain(summary), "environment": environment})


def compare(first: FirstRun, second: SecondRun, *, samples: Samples = 1000, json: options.Json = False) -> None:
    """Compare two runs on the same images: B - A with a paired bootstrap over images.

    The interval says how sure the difference is on images like these, not what another seed would give; for
    that, `aligncli ablate --seeds` repeats trainings.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    with output.waiting("drawing images"):
        from aligncli.engine.detections import compare_runs

        found = compare_runs(first, second, samples=samples)
    output.fields({"A": str(first), "B": str(second)})
    _print_comparison(found, output)
    output.data(asdict(found))


def errors(runs: Runs, *, json: options.Json = False) -> None:
    """Say what costs a run its AP: classification, localisation, both, duplicates, background, missed objects.

    As in TIDE: by how much AP at one IoU would rise, were all errors of one kind repaired and nothing else; for all
    objects, by size and by aspect ratio. Several runs side by side show what, say, alignment repairs.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    with output.waiting():
        from aligncli.engine.detections import find_errors
    found: dict[Path, list[Errors]] = {}
    with output.progress(waiting="reading the runs") as reporter:
        for run in runs:

            def tell(done: int, total: int, run: Path = run) -> None:
                reporter.stage(run.name, done=done, total=total)

            found[run] = find_errors(run, progress=tell)
    for run, each in found.items():
        output.heading(str(run), "AP, and what repairing one kind of error would add")
        _print_errors(each, output)
    output.data([{"run": str(run), "errors": [asdict(item) for item in each]} for run, each in found.items()])


def _print_comparison(found: Comparison, output: Output) -> None:
    rows: list[Sequence[Cell]] = []
    for name, item in found.metrics.items():
        sure = item.low > 0 or item.high < 0
        style = ("green" if item.delta > 0 else "red") if sure else ""
        rows.append(
            (
                name,
                number(item.first),
                number(item.second),
                Styled(signed(item.delta), style),
                "-" if math.isnan(item.delta) else f"{item.low:+.1f} to {item.high:+.1f}",
                "yes" if sure else "no",
            )
        )
    output.table(("", "A", "B", "B - A", "95 % interval", "apart from 0"), rows)
    classes = sorted(found.classes.items(), key=lambda item: item[1][0] - item[1][1])
    output.table(
        ("AP by class", "A", "B", "B - A"),
        [(name, number(a), number(b), signed(b - a)) for name, (a, b) in classes],
    )
    output.line(f"{found.num_images:,} images, {found.samples:,} bootstrap samples of them")


def _print_errors(found: Sequence[Errors], output: Output) -> None:
    """A table an IoU: AP of each part of the objects, and the gains."""
    for iou in dict.fromkeys(item.iou for item in found):
        rows = [
            (
                item.part,
                f"{item.num_objects:,}",
                number(item.average_precision),
                *(f"{gain:+.1f}" for gain in item.gains.values()),
            )
            for item in found
            if item.iou == iou
        ]
        output.table((f"IoU {iou:g}", "objects", "AP", *ERROR_COLUMNS), rows)


def _plain(run: RunSummary) -> dict[str, object]:
    return {
        "run": str(run.path),
        "recipe": run.recipe.name,
        "iteration": run.iteration,
        "iterations": run.recipe.schedule.iterations,
        "state": run.state,
        "finished": run.finished,
        "seconds": run.seconds,
        "metrics": run.metrics,
    }


def _when(run: RunSummary) -> str:
    """The time of today's runs, the day of others."""
    when = datetime.datetime.fromtimestamp(run.modified)
    return f"{when:%H:%M}" if when.date() == datetime.datetime.now().date() else f"{when:%Y-%m-%d}"
