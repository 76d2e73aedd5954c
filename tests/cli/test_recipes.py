"""`aligncli recipes`: what there is, and every number of it."""

from __future__ import annotations

import pytest

from aligncli.catalog import load_recipe, recipe_names
from aligncli.cli.recipes import input_size
from aligncli.config import parse_recipe, recipe_keys
from tests.cli.command_line import Run


def test_the_list_has_every_recipe(run: Run) -> None:
    ended = run("recipes", "list")
    assert ended.code == 0
    for name in recipe_names():
        assert name in ended.stdout
    assert [item["name"] for item in run("recipes", "list", "--json").json] == recipe_names()


def test_a_shown_recipe_has_every_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    ended = run("recipes", "show", "quickstart")
    assert ended.code == 0, ended.stderr
    dumped = load_recipe("quickstart").model_dump()
    for key in recipe_keys(dumped):
        section, _, leaf = key.rpartition(".")
        if leaf in ("name", "summary", "paper") and not section:
            continue
        value = dumped
        for part in key.split("."):
            value = value[part]
        if not isinstance(value, dict):
            line = next(line for line in ended.stdout.splitlines() if line.split(" ")[0] == (section or "recipe"))
            assert f"{leaf}=" in line or f"{leaf}=" in ended.stdout


def test_a_shown_value_can_be_typed_back(run: Run) -> None:
    recipe = load_recipe("aligndet_r50_dagger")
    shown = run("recipes", "show", "aligndet_r50_dagger").stdout
    assert "finest_kernel_size=3" in shown
    assert "clip_norm=none" in shown
    assert "levels=3,4,5,6,7" in shown
    assert "scales=4," in shown
    typed = ["model.neck.levels=3,4,5,6,7", "model.dpm.anchors.scales=4,", "schedule.clip_norm=none"]
    arguments = [word for assignment in typed for word in ("--set", assignment)]
    again = run("recipes", "show", "aligndet_r50_dagger", "--json", *arguments)
    assert parse_recipe(again.json["recipe"]) == recipe


def test_parameters_and_flops_are_those_of_the_architecture(run: Run) -> None:
    shown = run("recipes", "show", "retinanet_r50", "--json").json
    assert (shown["height"], shown["width"]) == (800, 1344)
    # torchvision's own RetinaNet with ResNet-50 FPN: 34.0 M with 91 classes, its P6 on P5's 256 channels
    # where the paper's has C5's 2048 (4.1 M more).
    assert shown["parameters"] == pytest.approx(37.9e6, rel=0.01)
    assert shown["flops"] == sum(shown["flops_by_part"].values())
    assert shown["flops"] / 2 == pytest.approx(250e9, rel=0.03)  # mmdetection reports 250 GMACs at 800 x 1333


def test_a_setting_changes_what_is_shown(run: Run) -> None:
    small = run("recipes", "show", "quickstart", "--json").json
    large = run("recipes", "show", "quickstart", "--json", "--set", "model.adm.channels=256").json
    assert large["recipe"]["model"]["adm"]["channels"] == 256
    assert large["parameters"] > small["parameters"]


def test_the_input_is_padded_as_the_detectors_pad() -> None:
    assert input_size(load_recipe("aligndet_r50")) == (800, 1344)
    assert input_size(load_recipe("quickstart")) == (128, 128)
