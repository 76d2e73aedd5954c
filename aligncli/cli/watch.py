"""`aligncli watch`: a training that another process runs, followed through its run folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligncli.cli import options
from aligncli.errors import TrainingError

if TYPE_CHECKING:
    from aligncli.cli.training_view import TrainingView
    from aligncli.engine.watched import Watched

Once = Annotated[bool, typer.Option("--once", help="Say how it stands and end; exit code 0 whatever that is.")]
Every = Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.1, max=3600.0, help="How often to look.")]


def watch(run: options.Run, *, once: Once = False, every: Every = 1.0, json: options.Json = False) -> None:
    """Follow a training that another process runs, and end when it ends.

    Shows what the training itself shows: progress, losses with a curve, rate, speed, memory, the last AP. Works on
    any run folder that this machine can read, on finished and broken runs too. Exit code 2 where the training did not
    finish: it was stopped or killed, or failed.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.watched import follow, look
    if once:
        seen = look(run)
        output.heading(str(run), describe(run, seen))
        view = view_of(seen)
        output.fields(view.rows() | ({"speed": view.speed()} if seen.is_running else {}))
        output.data(as_data(run, seen))
        return
    seen = None
    with output.display("looking at the run") as display:
        for seen in follow(run, every=every):
            view = view_of(seen)
            if seen.is_running:
                display.training(view)
            if seen.progress is not None and seen.state == "evaluating":
                display.show("evaluating", seen.progress.done, seen.progress.total, "")
    assert seen is not None
    if seen.state != "finished":
        raise TrainingError(f"{run}: {describe(run, seen)}")
    output.line(f"{run}: {describe(run, seen)}")
    output.data(as_data(run, seen))


def view_of(seen: Watched) -> TrainingView:
    """The training as its own process would show it."""
    from aligncli.cli.training_view import TrainingView

    view = TrainingView(iterations=seen.recipe.schedule.iterations)
    for record in seen.records:
        view.add(record)
    view.done = seen.iteration
    if seen.progress is not None:
        view.memory = seen.progress.memory
        if seen.is_running:
            view.images_per_second, view.eta_seconds = seen.progress.images_per_second, seen.progress.eta_seconds
    return view


def describe(run: Path, seen: Watched) -> str:
    """How it stands, in one line."""
    from aligncli.cli.describe import shell_path

    go_on = f"go on with: aligncli train --resume --out {shell_path(run)}"
    place = f"after {seen.iteration:,} of {seen.recipe.schedule.iterations:,} iterations"
    best = seen.average_precision
    match seen.state:
        case "finished":
            reached = f", AP {best[1]:.1f}" if best else ", AP undefined"
            return f"finished {place}{reached}"
        case "failed":
            reason = seen.progress.reason if seen.progress else ""
            return f"failed {place}: {reason}"
        case "killed":
            return f"killed, or hanging, {place}: its process is gone or silent; {go_on}"
        case "stopped":
            return f"stopped {place}; {go_on}"
        case "unfinished":
            return f"unfinished {place}: no process writes into it"
    return f"{seen.state} {place}"


def as_data(run: Path, seen: Watched) -> dict[str, Any]:
    """For programs; None where it is not known."""
    view = view_of(seen)
    best = seen.average_precision
    return {
        "run": str(run),
        "state": seen.state,
        "iteration": seen.iteration,
        "iterations": seen.recipe.schedule.iterations,
        "loss": view.loss,
        "lr": view.lr,
        "images_per_second": view.images_per_second,
        "eta_seconds": view.eta_seconds,
        "memory": view.memory,
        "AP": best[1] if best else math.nan,
        "reason": seen.progress.reason if seen.progress else "",
    }
