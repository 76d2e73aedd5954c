"""The `aligncli` command: assembles the commands and runs one. Nothing here imports torch: `--help` has to be quick."""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from aligncli.cli import (
    analyze,
    convert,
    data,
    doctor,
    download,
    evaluate,
    export,
    extract,
    import_weights,
    options,
    predict,
    recipes,
    report,
    runs,
    study,
    train,
    watch,
)
from aligncli.cli.bench import data as bench_data
from aligncli.cli.bench import evaluators as bench_evaluators
from aligncli.cli.bench import model as bench_model
from aligncli.cli.bench import op as bench_op
from aligncli.cli.bench import train as bench_train
from aligncli.cli.examples import epilog
from aligncli.cli.guard import guard
from aligncli.cli.home.conversation import run_with_questions
from aligncli.cli.render import show_log
from aligncli.engine.interrupt import sigterm_as_exit, swallowed_interrupts_sent_again
from aligncli.environment import launched_place, let_missing_operators_run_on_the_cpu

# Plain help: rich's panels would cost a third of the start-up time and a usage error its one line.
GROUP_SETTINGS: dict[str, Any] = {
    "invoke_without_command": True,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}

app = typer.Typer(name="aligncli", **GROUP_SETTINGS)
recipes_app = typer.Typer(name="recipes", **GROUP_SETTINGS)
data_app = typer.Typer(name="data", **GROUP_SETTINGS)
runs_app = typer.Typer(name="runs", **GROUP_SETTINGS)
bench_app = typer.Typer(name="bench", **GROUP_SETTINGS)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aligncli {version('aligncli')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


@app.callback()
def _aligncli(context: typer.Context, version: Version = False) -> None:
    """Feature alignment for one-stage object detection: RoIConv, AlignDet.

    `aligncli train` alone is a complete first run: embedded data, a few minutes on a CPU.
    """
    del version  # its callback has printed it
    _help_if_alone(context)


@recipes_app.callback()
def _recipes(context: typer.Context) -> None:
    """List recipes and show their numbers."""
    _help_if_alone(context)


@data_app.callback()
def _data(context: typer.Context) -> None:
    """Check, describe, look at, convert, split and fetch data sets."""
    _help_if_alone(context)


@runs_app.callback()
def _runs(context: typer.Context) -> None:
    """List, show and compare runs."""
    _help_if_alone(context)


@bench_app.callback()
def _bench(context: typer.Context) -> None:
    """Measure speed and memory against other implementations."""
    _help_if_alone(context)


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _register(group: typer.Typer, name: str, command: Callable[..., None]) -> None:
    """Add a command, with its examples, and `--debug` among its options: `main` acts on it, commands need not know."""
    signature = inspect.signature(command, eval_str=True)
    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=options.Debug)

    @functools.wraps(command)
    def run(*, debug: bool, **values: Any) -> None:
        del debug
        command(**values)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), debug])  # type: ignore[attr-defined]
    words = name if group is app else f"{group.info.name} {name}"
    group.command(name, epilog=epilog(words))(run)


_register(app, "train", train.train)
_register(app, "watch", watch.watch)
_register(app, "eval", evaluate.evaluate)
_register(app, "predict", predict.predict)
_register(app, "analyze-alignment", analyze.analyze_alignment)
_register(app, "errors", runs.errors)
_register(app, "report", report.report)
_register(app, "reproduce", study.reproduce)
_register(app, "pilot", study.pilot)
_register(app, "ablate", study.ablate)
_register(app, "import", import_weights.import_weights)
_register(app, "extract", extract.extract)
_register(app, "export", export.export)
_register(app, "doctor", doctor.doctor)
_register(recipes_app, "list", recipes.list_recipes)
_register(recipes_app, "show", recipes.show_recipe)
_register(data_app, "check", data.check)
_register(data_app, "stats", data.stats)
_register(data_app, "view", data.view)
_register(data_app, "convert", convert.convert)
_register(data_app, "split", convert.split)
_register(data_app, "download", download.download)
_register(runs_app, "list", runs.list_runs)
_register(runs_app, "show", runs.show_run)
_register(runs_app, "compare", runs.compare)
_register(bench_app, "op", bench_op.op)
_register(bench_app, "model", bench_model.model)
_register(bench_app, "train", bench_train.train)
_register(bench_app, "eval", bench_evaluators.evaluators)
_register(bench_app, "data", bench_data.data)
app.add_typer(recipes_app)
app.add_typer(runs_app)
app.add_typer(data_app)
app.add_typer(bench_app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (without the program's name; default: the process's own) and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a file name may not fit the terminal's encoding
    if sys.platform == "darwin":
        let_missing_operators_run_on_the_cpu()
    place = launched_place()
    if place is None or place.rank == 0:
        show_log("aligncli_ext")  # a kernel that is built at first use says so
    with sigterm_as_exit(), swallowed_interrupts_sent_again():
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `aligncli ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    debug = "--debug" in arguments
    return guard(lambda: run_with_questions(arguments, _call), debug=debug)


def _call(arguments: Sequence[str]) -> int | None:
    return app(args=list(arguments), prog_name="aligncli", standalone_mode=False)
