"""The home screen of `aligncli` alone in a terminal: what is here, and what can be done with it.

Every choice is a command line; menus only put it together. A menu's value is the rest of a command line, or a
function that asks on for it and returns None to come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from aligncli.cli.describe import command_line
from aligncli.cli.found import DataFolder, data_format_of, find_data, recent_runs
from aligncli.cli.home.machine import describe_device, describe_kernels
from aligncli.cli.home.menu import Item, ask_path, choose
from aligncli.cli.home.questions import ask_data, ask_folder, ask_recipe, ask_run
from aligncli.cli.tables import number

if TYPE_CHECKING:
    from aligncli.engine.run_list import RunSummary

NUM_RECENT_RUNS = 3
NUM_SHOWN_DATA = 3
RUN_WIDTH = 44  # of a run's path, from its end: all columns fit 80

Command = list[str]
Ask = Callable[[], Command | None]


def home() -> Command | None:
    """The command line that the user puts together, without the program's name; None where they leave."""
    return _ask_on(_title(), [*_run_items(), *_things_to_do()])


def _ask_on(title: str, items: Sequence[Item[Command | Ask]]) -> Command | None:
    """Show a menu until a choice of it is a whole command; None for Esc."""
    while True:
        chosen = choose(title, items)
        if chosen is None or isinstance(chosen, list):
            return chosen
        command = chosen()
        if command is not None:
            return command


def _title() -> str:
    data = [f"{found.path} ({found.format})" for found in find_data()]
    more = f", {len(data) - NUM_SHOWN_DATA} more" if len(data) > NUM_SHOWN_DATA else ""
    return "\n".join(
        [
            f"aligncli {version('aligncli')}: feature alignment for one-stage object detection",
            f"device   {describe_device()}",
            f"kernels  {describe_kernels()}",
            f"data     {', '.join(['embedded shapes', *data[:NUM_SHOWN_DATA]])}{more}",
        ]
    )


def _run_items() -> list[Item[Command | Ask]]:
    runs = recent_runs(NUM_RECENT_RUNS)
    heading = f"{'Recent runs':{RUN_WIDTH}}       AP     iterations"
    return [
        Item(_run_line(run), partial(_about_run, run.path), section=heading, command=f"aligncli runs show {run.path}")
        for run in runs
    ]


def _run_line(run: RunSummary) -> str:
    path = str(run.path)
    shown = path if len(path) <= RUN_WIDTH else "..." + path[3 - RUN_WIDTH :]
    done = f"{run.iteration:,}/{run.recipe.schedule.iterations:,}"
    return f"{shown:{RUN_WIDTH}} {number(run.metrics.get('AP', math.nan)):>5} {done:>14}"


def _things_to_do() -> list[Item[Command | Ask]]:
    section = "Start here"
    return [
        _command("Train a first detector: embedded data, a few minutes", ["train"], section=section),
        Item("Train a recipe ...", _train_recipe, section, "aligncli train RECIPE"),
        Item("Use my own images, or COCO ...", _use_data, section, "aligncli data ..."),
        Item("Reproduce the paper's experiments ...", _run_study, section, "aligncli reproduce"),
        _command("See all runs", ["runs", "list"], section=section),
        _command("Examine this machine", ["doctor"], section=section),
    ]


def _about_run(run: Path) -> Command | None:
    name = str(run)
    items: list[Item[Command | Ask]] = [
        _command("Show what it reached", ["runs", "show", name]),
        _command("Evaluate it, with AP for each class", ["eval", name, "--per-class"]),
        Item("Detect objects on an image ...", partial(_predict, name), "", command_line(["predict", name, "IMAGE"])),
        _command("See what costs it AP", ["errors", name]),
        _command("Write its report, one HTML file", ["report", name]),
        _command("Measure how well features and boxes agree", ["analyze-alignment", name]),
        Item(
            "Compare it with another run ...", partial(_compare, name), "", command_line(["runs", "compare", name, "B"])
        ),
        _command("Go on with its training", ["train", "--resume", "--out", name]),
        _command("Export it, to run without aligncli", ["export", name, "--verify"]),
    ]
    return _ask_on(name, items)


def _predict(run: str) -> Command | None:
    image = ask_path("Which image", only_folders=False)
    return None if image is None else ["predict", run, image]


def _compare(run: str) -> Command | None:
    other = ask_run()
    return None if other is None else ["runs", "compare", run, other]


def _train_recipe() -> Command | None:
    name = ask_recipe()
    if name is None:
        return None
    from aligncli.catalog import load_recipe

    if load_recipe(name).data.kind == "shapes":
        return ["train", name]
    folder = ask_data()
    return None if folder is None else ["train", name, "--data", folder]


def _use_data() -> Command | None:
    found: list[Item[Command | Ask]] = [
        Item(f"{data.path}  ({data.format})", partial(_about_data, data), "Found here") for data in find_data()
    ]
    section = "Elsewhere"
    return _ask_on(
        "Which data?",
        [
            *found,
            Item("Another folder ...", _about_other_data, section),
            _command("Fetch COCO from its server, 20 GB", ["data", "download", "coco"], section=section),
            _command("Describe the embedded shapes", ["data", "stats", "shapes"], section=section),
        ],
    )


def _about_other_data() -> Command | None:
    folder = ask_folder("Which folder")
    return None if folder is None else _about_data(DataFolder(Path(folder), data_format_of(Path(folder)) or "coco"))


def _about_data(data: DataFolder) -> Command | None:
    folder = str(data.path)
    if data.format != "coco":
        made = str(data.path.with_name(f"{data.path.resolve().name}_coco"))
        return _ask_on(folder, [_command("Convert it", ["data", "convert", data.format, folder, "--out", made])])
    return _ask_on(
        folder,
        [
            _command("Check it for faults", ["data", "check", folder]),
            _command("Count classes, and measure boxes", ["data", "stats", folder]),
            _command("Draw a sheet of its images", ["data", "view", folder]),
            _command("Train on it", ["train", "--data", folder]),
        ],
    )


def _run_study() -> Command | None:
    from aligncli.cli.studies import PILOT, PILOT_ROI_CONV, all_studies

    heads = {PILOT: ["pilot"], PILOT_ROI_CONV: ["pilot", "--roiconv"]}
    everything = partial(_about_study, ["reproduce"], "Every table and figure")
    items: list[Item[Command | Ask]] = [Item("All of them", everything, "", command_line(["reproduce"]))]
    for study in all_studies():
        head = heads.get(study.name, ["ablate", study.name])
        ask = partial(_about_study, head, f"{study.table}: {study.title}")
        items.append(Item(f"{study.table:24} {study.title}", ask, "", command_line(head)))
    return _ask_on("The paper's tables and figure", items)


def _about_study(head: Command, title: str) -> Command | None:
    small, coco = "On embedded data, on this machine", "As in the paper, on COCO"
    items: list[Item[Command | Ask]] = []
    if head != ["ablate", "testdev"]:
        items += [
            _command("Say what would be trained, and how long it takes", [*head, "--dry-run"], section=small),
            _command("Train it, one seed", head, section=small),
            _command("Train it, three seeds", [*head, "--seeds", "3"], section=small),
        ]
    at_scale = [*head, "--scale", "coco", "--data"]
    for text, rest in (("Say what would be trained ...", ["--dry-run"]), ("Train it ...", [])):
        ask = partial(_with_data, at_scale, rest)
        items.append(Item(text, ask, coco, command_line([*at_scale, "FOLDER", *rest])))
    return _ask_on(title, items)


def _with_data(head: Command, rest: Command) -> Command | None:
    folder = ask_data()
    return None if folder is None else [*head, folder, *rest]


def _command(text: str, command: Command, *, section: str = "") -> Item[Command | Ask]:
    return Item(text, command, section, command_line(command))
