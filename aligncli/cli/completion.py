"""What a shell offers for recipes, studies and runs (`aligncli --install-completion`). Imports no torch.

The names of files stay the shell's: it offers them where nothing here fits.
"""

from __future__ import annotations


def complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """Packaged recipes, each with its summary."""
    from aligncli.catalog import load_recipe, recipe_names

    return [(name, load_recipe(name).summary) for name in recipe_names() if name.startswith(incomplete)]


def complete_study(incomplete: str) -> list[tuple[str, str]]:
    """Studies that `aligncli ablate` takes, each with its table and title."""
    from aligncli.cli.studies import ablations

    studies = [(study.name, f"{study.table}: {study.title}") for study in ablations()]
    offered = [*studies, ("all", "every one of them")]
    return [(name, text) for name, text in offered if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Run folders in the usual places, the newest first."""
    from aligncli.cli.found import find_run_folders

    return [path for path in map(str, find_run_folders()) if path.startswith(incomplete)]
