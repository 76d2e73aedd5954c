"""Which recipe a training has: the one that is named, changed; or a run's own, to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligncli.errors import CheckpointError, MissingChoice, RecipeError

if TYPE_CHECKING:
    from aligncli.catalog import Parts
    from aligncli.config import Recipe


def choose_recipe(
    name: str | None, *, plain: Path | None, data: Path | None, changes: Mapping[str, object]
) -> tuple[Recipe, Parts]:
    """The named recipe (or the one in `plain`, or the default) on the user's data, changed, and its file's own parts.

    Raises UserErrors."""
    from aligncli.catalog import NO_PARTS, load_plain_recipe, load_recipe_and_parts, on_folder

    if plain is not None:
        recipe, parts = load_plain_recipe(plain), NO_PARTS
    else:
        recipe, parts = load_recipe_and_parts(name or ("photo" if data else "quickstart"))
    if data is not None:
        recipe = on_folder(recipe, data)
    recipe = recipe.changed(changes)
    if recipe.data.kind == "coco" and not recipe.data.root:
        raise MissingChoice(
            f"recipe {recipe.name!r} needs your images: add --data FOLDER, with images/ and "
            "annotations/instances_train.json and instances_val.json in it",
            option="--data",
        )
    return recipe, parts


def recipe_to_resume(
    run_dir: Path, *, name: str | None, plain: Path | None, data: Path | None, changes: Mapping[str, object]
) -> tuple[Recipe, Parts]:
    """The run's own recipe; whatever else the command line says must agree with it, and may bring parts.

    Raises UserErrors."""
    from aligncli.catalog import NO_PARTS, load_plain_recipe, load_recipe_and_parts, on_folder

    path = run_dir / "recipe.json"
    if not path.is_file():
        raise CheckpointError(f"{run_dir} holds no run to go on with (no {path.name}): start it without --resume")
    saved = load_plain_recipe(path)
    asked, parts = load_recipe_and_parts(name) if name else (load_plain_recipe(plain or path), NO_PARTS)
    if data is not None:
        asked = on_folder(asked, data)
    difference = first_difference(saved.model_dump(), asked.changed(changes).model_dump())
    if difference:
        raise RecipeError(
            f"{run_dir} was started with another recipe ({difference}): --resume goes on with the run's own, "
            "so drop what differs, or start a new run in another --out"
        )
    return saved, parts


def first_difference(saved: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str:
    """`schedule.iterations is 400, not 800` for the first key that differs, or nothing."""
    for key in dict.fromkeys([*saved, *asked]):
        mine, other = saved.get(key), asked.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            difference = first_difference(mine, other, f"{prefix}{key}.")
            if difference:
                return difference
        elif mine != other:
            return f"{prefix}{key} is {mine}, not {other}"
    return ""
