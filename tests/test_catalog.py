"""Recipes by name, by Python file and by JSON file; data folders by their layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligncli.catalog import data_in, load_recipe, on_folder, recipe_names
from aligncli.config import CocoConfig, Recipe
from aligncli.errors import RecipeError


def test_the_packaged_recipes_are_those_with_a_recipe() -> None:
    names = recipe_names()
    assert {"quickstart", "photo", "aligndet_r50", "retinanet_r50"} <= set(names)
    assert not {"base", "small"} & set(names)
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "nearest"), [("quikstart", "quickstart"), ("aligndet-r50", "aligndet_r50"), ("Photo", "photo")]
)
def test_an_unknown_name_is_answered_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name)
    assert str(caught.value) == f"unknown recipe {name!r}: did you mean {nearest!r}?"


@pytest.mark.parametrize("name", ["", "base", "small", "..", "os", "qqqqqqqqqqqqqqqqqqqqqq"])
def test_what_is_no_recipe_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="unknown recipe"):
        load_recipe(name)


def test_a_saved_recipe_is_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart").changed({"seed": 5})
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json())
    assert load_recipe(str(path)) == recipe


def test_a_python_file_is_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from aligncli.recipes.quickstart import RECIPE as BASE\nRECIPE = BASE.changed({'name': 'mine'})\n")
    assert load_recipe(str(path)) == load_recipe("quickstart").changed({"name": "mine"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "RECIPE = 3", "defines no RECIPE"),
        ("a.py", "1 / 0", "ZeroDivisionError"),
        ("a.py", "def (", "SyntaxError"),
        ("a.py", "import no_such_module", "ModuleNotFoundError"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "expected an object"),
        ("a.json", '{"name": "x"}', "recipe key 'summary'"),
    ],
)
def test_a_broken_recipe_file_is_one_recipe_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


def test_a_json_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not valid JSON"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["missing.py", "missing.json"])
def test_a_missing_recipe_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="does not exist") as caught:
        load_recipe(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({}))


def test_a_folder_is_read_in_our_layout_by_default(tmp_path: Path) -> None:
    _touch(tmp_path / "annotations" / "instances_val.json")
    assert data_in(tmp_path) == CocoConfig(root=str(tmp_path.resolve()))


def test_the_official_coco_folder_is_recognised(tmp_path: Path) -> None:
    _touch(tmp_path / "annotations" / "instances_val2017.json")
    data = data_in(tmp_path)
    assert data.images == "{split}2017"
    assert data.train_annotations == "annotations/instances_train2017.json"
    assert data.root == str(tmp_path.resolve())


def test_a_recipe_keeps_its_own_layout_where_the_folder_has_it(tmp_path: Path) -> None:
    own = CocoConfig(root="elsewhere", images="photos", val_annotations="labels/val.json")
    recipe = load_recipe("photo").changed({"data": own.model_dump()})
    _touch(tmp_path / "annotations" / "instances_val.json")
    assert on_folder(recipe, tmp_path).data == CocoConfig(root=str(tmp_path.resolve()))
    _touch(tmp_path / "labels" / "val.json")
    assert on_folder(recipe, tmp_path).data == own.model_copy(update={"root": str(tmp_path.resolve())})


def test_a_shapes_recipe_can_train_on_a_folder(tmp_path: Path) -> None:
    recipe = on_folder(load_recipe("quickstart"), tmp_path)
    assert isinstance(recipe, Recipe)
    assert recipe.data == CocoConfig(root=str(tmp_path.resolve()))
