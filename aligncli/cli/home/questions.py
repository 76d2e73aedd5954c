"""What a command line lacks, asked for in a terminal: a run, a recipe, a study, a folder of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aligncli.cli.found import find_data, find_run_folders
from aligncli.cli.home.menu import Item, ask_path, choose

ANOTHER = "another folder"


def ask_run() -> str | None:
    """A run folder near the working folder, or any other."""
    items = [Item(str(path), str(path)) for path in find_run_folders()]
    return _or_another("Which run?", items)


def ask_run_to_resume() -> str | None:
    """A run that has a checkpoint to go on from, or any other."""
    from aligncli.cli.launch import has_checkpoint

    items = [Item(str(path), str(path)) for path in find_run_folders() if has_checkpoint(path)]
    return _or_another("Which run is to go on?", items)


def ask_data() -> str | None:
    """A folder with COCO annotations."""
    items = [Item(str(data.path), str(data.path)) for data in find_data() if data.format == "coco"]
    return _or_another("Which data? Folders with COCO annotations, found here:", items)


def ask_recipe() -> str | None:
    """The name of a packaged recipe."""
    from aligncli.catalog import load_recipe, recipe_names
    from aligncli.cli.recipes import by_setting

    recipes = by_setting([load_recipe(name) for name in recipe_names()])
    width = max(len(recipe.name) for listed in recipes.values() for recipe in listed)
    items = [
        Item(f"{recipe.name:{width}}  {recipe.summary}", recipe.name, section=setting)
        for setting, listed in recipes.items()
        for recipe in listed
    ]
    return choose("Which recipe?", items)


def ask_study() -> str | None:
    """The name of a study that `aligncli ablate` takes."""
    from aligncli.cli.studies import ablations

    return choose(
        "Which study?", [Item(f"{study.name:13}  {study.table}: {study.title}", study.name) for study in ablations()]
    )


# By what a usage line calls the argument, or the option that is missing.
QUESTIONS: dict[str, Callable[[], str | None]] = {
    "RUN": ask_run,
    "RUN...": ask_run,
    "A": ask_run,
    "B": ask_run,
    "RECIPE": ask_recipe,
    "STUDY": ask_study,
    "FOLDER": ask_data,
    "FOLDER|shapes": ask_data,
    "--data": ask_data,
    "--out": ask_run_to_resume,
}


def ask_folder(question: str) -> str | None:
    """Any folder that exists, typed."""
    while (typed := ask_path(question, only_folders=True)) is not None:
        if Path(typed).is_dir():
            return typed
        question = f"{typed} is no folder. Another one"
    return None


def _or_another(title: str, items: Sequence[Item[str]]) -> str | None:
    chosen = choose(title, [*items, Item(f"{ANOTHER} ...", ANOTHER)]) if items else ANOTHER
    return ask_folder(title.partition("?")[0]) if chosen == ANOTHER else chosen
