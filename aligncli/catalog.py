"""Recipes by name or file: the packaged ones, a user's Python file, or the JSON that a run saved.

A Python file may bring parts of its own: `PARTS`, classes and functions by the names that the recipe's
`CustomConfig`s use (docs/extending.md). Only a file that the user names is ever run.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from aligncli.config import CocoConfig, Recipe, Study, parse_recipe
from aligncli.errors import RecipeError
from aligncli.plain import parse_json

PACKAGE = "aligncli.recipes"  # the top-level folder recipes/, under its installed name

Parts = Mapping[str, Callable[..., Any]]
NO_PARTS: Parts = {}


def recipe_names() -> list[str]:
    """Names of the packaged recipes, sorted."""
    return sorted(_packaged_recipes())


def load_recipe(name_or_path: str) -> Recipe:
    """The packaged recipe of that name, or the one in a `.py` (RECIPE) or `.json` (plain data) file.

    A `.py` file is code and is run. Raises RecipeError for an unknown name, naming the nearest one, and
    for a file that is missing or holds no recipe.
    """
    return load_recipe_and_parts(name_or_path)[0]


def load_recipe_and_parts(name_or_path: str) -> tuple[Recipe, Parts]:
    """As `load_recipe`, with the PARTS of a `.py` file that defines them; the file is run once."""
    path = expand_user(Path(name_or_path))
    match path.suffix:
        case ".py":
            module = _run_file(path, what="recipe file")
            return _recipe_of(module, str(path)), _parts_of(module, str(path))
        case ".json":
            return load_plain_recipe(path), NO_PARTS
    recipes = _packaged_recipes()
    if name_or_path not in recipes:
        raise _unknown_name(name_or_path, sorted(recipes))
    return recipes[name_or_path], NO_PARTS


def load_plain_recipe(path: Path) -> Recipe:
    """The recipe in a file of plain data, JSON whatever the name; nothing is run. Raises RecipeError."""
    path = expand_user(path)
    _require_file(path, what="recipe file")
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise RecipeError(f"recipe file {path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"recipe file {path} holds a {type(values).__name__}, expected an object")
    return parse_recipe(values)


def load_parts(path: Path) -> Parts:
    """The PARTS of a `.py` file, which is run: parts of a user's own by name. Raises RecipeError."""
    path = expand_user(path)
    if path.suffix != ".py":
        raise RecipeError(f"code file {path} must be a .py file that defines PARTS")
    parts = _parts_of(_run_file(path, what="code file"), str(path))
    if not parts:
        raise RecipeError(f'{path} defines no PARTS: expected PARTS = {{"name": class or function, ...}}')
    return parts


def study_names() -> list[str]:
    """Names of the packaged studies, in the order of the paper's tables."""
    return list(_packaged_studies())


def load_study(name: str) -> Study:
    """The packaged study of that name. Raises RecipeError that names the nearest one."""
    studies = _packaged_studies()
    if name not in studies:
        near = difflib.get_close_matches(name, studies, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known studies are {', '.join(studies)}"
        raise RecipeError(f"unknown study {name!r}: {hint}")
    return studies[name]


def on_folder(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with a user's COCO folder for data; the recipe's own file layout is tried first."""
    own = recipe.data if isinstance(recipe.data, CocoConfig) else None
    return recipe.changed({"data": data_in(folder, preferred=own).model_dump()})


def data_in(folder: Path, *, preferred: CocoConfig | None = None, split: Literal["val", "test"] = "val") -> CocoConfig:
    """The layout of a COCO folder: the first of the known ones whose validation annotations it has.

    Known are the preferred one, ours (images/, annotations/instances_{train,val}.json) and COCO's own
    (train2017/). A folder with none of them is taken for ours: opening it names what is missing. For the
    test split it is the first with the list and the folder of test images, else COCO's own.
    """
    root = os.path.realpath(expand_user(folder))  # Path.resolve raises where links lead in a circle
    ours, theirs = CocoConfig(root=root), _packaged("base").COCO
    layouts = [layout.model_copy(update={"root": root}) for layout in (preferred, ours, theirs) if layout]
    if split == "test":
        return next((layout for layout in layouts if _has_test(layout)), layouts[-1])
    fitting = (layout for layout in layouts if (Path(root) / layout.val_annotations).is_file())
    return next(fitting, ours)


def expand_user(path: Path) -> Path:
    """`~` and `~name` as home folders; the path itself where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _has_test(layout: CocoConfig) -> bool:
    images = Path(layout.root) / layout.images.replace("{split}", "test")
    return images.is_dir() and (Path(layout.root) / layout.test_annotations).is_file()


def _packaged_recipes() -> dict[str, Recipe]:
    """By name: RECIPE of the modules of `aligncli.recipes`, and RECIPES, a family that one file lists."""
    modules = [_packaged(found.name) for found in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)]
    listed = [recipe for module in modules for recipe in (*_own(module), *getattr(module, "RECIPES", ()))]
    return {recipe.name: recipe for recipe in listed}


def _packaged_studies() -> dict[str, Study]:
    modules = [_packaged(found.name) for found in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)]
    return {study.name: study for module in modules for study in getattr(module, "STUDIES", ())}


def _own(module: ModuleType) -> tuple[Recipe, ...]:
    return (module.RECIPE,) if hasattr(module, "RECIPE") else ()


def _packaged(module: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{module}")


def _recipe_of(module: ModuleType, source: str) -> Recipe:
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{source} defines no RECIPE of type aligncli.config.Recipe")
    return recipe


def _parts_of(module: ModuleType, source: str) -> Parts:
    parts = getattr(module, "PARTS", NO_PARTS)
    sound = isinstance(parts, Mapping) and all(isinstance(name, str) and callable(parts[name]) for name in parts)
    if not sound:
        raise RecipeError(f"PARTS in {source} must be a dict from names to classes or functions")
    return parts


def _run_file(path: Path, *, what: str) -> ModuleType:
    _require_file(path, what=what)
    name = f"aligncli-file:{path.resolve()}"  # no import can take it for another module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:  # the command is not the file's to end
        raise RecipeError(f"{what} {path} failed: {type(error).__name__}: {error}") from error
    return module


def _require_file(path: Path, *, what: str) -> None:
    if path.is_dir():
        raise RecipeError(f"{what} {path} is a folder: expected a file")
    if not path.is_file():
        hint = "; `aligncli recipes list` names the packaged ones" if what == "recipe file" else ""
        raise RecipeError(f"{what} {path} does not exist{hint}")


def _unknown_name(name: str, names: list[str]) -> RecipeError:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    everywhere = "`aligncli recipes list` names the packaged ones, and a recipe of your own is a .py or .json file"
    hint = f"did you mean {near[0]!r}?" if near else everywhere
    return RecipeError(f"unknown recipe {name!r}: {hint}")
