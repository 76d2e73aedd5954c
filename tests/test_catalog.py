"""Recipes by name, by Python file and by JSON file; data folders by their layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligncli.catalog import data_in, load_parts, load_recipe, load_recipe_and_parts, on_folder, recipe_names
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
        ("a.py", "import sys; sys.exit(0)", "SystemExit"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[" * 1_000_000, "not valid JSON: nested too deeply"),
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


def test_a_folder_that_cannot_be_found_is_left_for_its_reader_to_name(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert Path(data_in(tmp_path / "loop").root).name == "loop"
    assert data_in(Path("~no-such-user/data")).root.endswith("~no-such-user/data")


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


def test_the_test_images_are_where_coco_keeps_them_or_where_the_folder_has_them(tmp_path: Path) -> None:
    assert data_in(tmp_path, split="test").images == "{split}2017"  # what the message will say is missing
    own = CocoConfig(root="elsewhere", images="{split}", test_annotations="list.json")
    _touch(tmp_path / "annotations" / "instances_val.json")
    _touch(tmp_path / "annotations" / "image_info_test-dev2017.json")
    (tmp_path / "test2017").mkdir()
    assert data_in(tmp_path, preferred=own, split="test").images == "{split}2017"
    (tmp_path / "images").mkdir()
    assert data_in(tmp_path, preferred=own, split="test").images == "images"
    _touch(tmp_path / "list.json")
    (tmp_path / "test").mkdir()
    assert data_in(tmp_path, preferred=own, split="test").images == "{split}"


def test_a_shapes_recipe_can_train_on_a_folder(tmp_path: Path) -> None:
    recipe = on_folder(load_recipe("quickstart"), tmp_path)
    assert isinstance(recipe, Recipe)
    assert recipe.data == CocoConfig(root=str(tmp_path.resolve()))


def test_a_python_file_brings_its_own_parts(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from aligncli.recipes.quickstart import RECIPE\n"
        "@dataclass\n"  # looks its module up, so that it has to be known
        "class Part:\n"
        "    width: int\n"
        "PARTS = {'part': Part, 'function': lambda: 3}\n"
    )
    recipe, parts = load_recipe_and_parts(str(path))
    assert recipe == load_recipe("quickstart")
    assert parts["part"](width=4).width == 4
    assert parts["function"]() == 3
    assert list(load_parts(path)) == ["part", "function"]


def test_a_file_is_run_once_for_its_recipe_and_its_parts(tmp_path: Path) -> None:
    path, log = tmp_path / "mine.py", tmp_path / "log"
    path.write_text(
        f"open({str(log)!r}, 'a').write('run\\n')\n"
        "from aligncli.recipes.quickstart import RECIPE\n"
        "PARTS = {'part': object}\n"
    )
    load_recipe_and_parts(str(path))
    assert log.read_text() == "run\n"


def test_recipes_without_code_bring_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(load_recipe("quickstart").model_dump_json())
    for name in ("quickstart", str(path)):
        assert load_recipe_and_parts(name)[1] == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "x = 3", "defines no PARTS"),
        ("a.py", "PARTS = {}", "defines no PARTS"),
        ("a.py", "PARTS = ['part']", "must be a dict from names to classes or functions"),
        ("a.py", "PARTS = {'part': 3}", "must be a dict from names to classes or functions"),
        ("a.py", "PARTS = {3: object}", "must be a dict from names to classes or functions"),
        ("a.py", "1 / 0", "code file .* failed: ZeroDivisionError"),
        ("a.txt", "PARTS = {'part': object}", "must be a .py file"),
    ],
)
def test_a_broken_code_file_is_one_recipe_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_parts(path)


def test_a_missing_code_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"code file .*mine\.py does not exist$"):
        load_parts(tmp_path / "mine.py")


def test_a_file_cannot_stand_in_for_a_module_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text("PARTS = {'part': object}\n")
    load_parts(path)
    import json as again

    assert again is json
