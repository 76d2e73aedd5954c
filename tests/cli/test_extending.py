"""A user's recipe file with a user's class, from outside of the package: train, resume, eval, predict, show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.command_line import TINY_SHAPES, Run

CODE = """
from aligncli.anchors import AnchorGenerator
from aligncli.build.parts import build_loss
from aligncli.config import CustomConfig, LossConfig, MatcherConfig
from aligncli.models.branches import Branches
from aligncli.models.heads.retinanet import RetinaNetHead
from aligncli.recipes.aligndet_small import RECIPE as ALIGNDET


class TallDPM(RetinaNetHead):
    def __init__(self, channels, num_classes, strides, *, ratio):
        tower = dict(num_convs=0, tower_channels=channels, norm="none")
        super().__init__(
            anchors=AnchorGenerator(scales=(3.0,), ratios=(float(ratio),)),
            branches=Branches(channels, num_classes=num_classes, num_anchors=1, **tower),
            loss=build_loss(LossConfig(), MatcherConfig(foreground=0.4, background=0.3)),
        )


PARTS = {"tall": TallDPM}
RECIPE = ALIGNDET.changed(
    {
        "name": "mine",
        "summary": "my own",
        "model.dpm": CustomConfig(name="tall", settings={"ratio": 2.0}).model_dump(),
        "model.adm.num_convs": 1,
        "model.adm.channels": 16,
    }
)
"""
NEEDS_CODE = "--code FILE.py (it is code and is run)"


@pytest.fixture(scope="module")
def my_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "my recipe.py"
    path.write_text(CODE)
    return path


def train_elsewhere(*arguments: object, cwd: Path) -> str:
    """Train in a process of its own, on one thread, and return what it printed.

    Runs are compared to the last bit, and within this process what ran before may move it: threads decide the
    order of sums, and where a matrix lies in memory decides how some libraries multiply it.
    """
    command = [sys.executable, "-m", "aligncli", "train", *map(str, arguments), "--device", "cpu", "--threads", "1"]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def my_run(my_file: Path) -> Path:
    """Trained from another folder, by the installed command."""
    out = my_file.parent / "run"
    printed = train_elsewhere(my_file.name, "--out", out, *TINY_SHAPES, cwd=my_file.parent)
    assert f"aligncli eval {out} --per-class --code 'my recipe.py'" in printed
    return out


def test_a_run_holds_the_part_s_name_and_settings_and_no_code(my_run: Path) -> None:
    dpm = json.loads((my_run / "recipe.json").read_text())["model"]["dpm"]
    assert dpm == {"kind": "custom", "name": "tall", "settings": {"ratio": 2.0}}
    assert not list(my_run.rglob("*.py"))


def test_a_run_with_code_is_evaluated_only_with_its_code(run: Run, my_run: Path, my_file: Path) -> None:
    before = json.loads((my_run / "evaluation.json").read_text())["metrics"]
    ended = run("eval", my_run, "--device", "cpu", "--json", "--code", my_file)
    assert ended.code == 0, ended.stderr
    assert ended.json == before
    line = run("eval", my_run, "--device", "cpu").error_line()
    assert "part 'tall'" in line
    assert NEEDS_CODE in line


def test_a_run_with_code_predicts_only_with_its_code(run: Run, my_run: Path, my_file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    arguments = ["predict", my_run, tmp_path / "black.png", "--out", tmp_path / "out", "--device", "cpu"]
    assert NEEDS_CODE in run(*arguments).error_line()
    ended = run(*arguments, "--code", my_file)
    assert ended.code == 0, ended.stderr
    assert (tmp_path / "out" / "black.png").is_file()


def test_a_run_with_code_is_resumed_with_the_recipe_file_or_with_code(run: Run, my_run: Path, my_file: Path) -> None:
    resume = ["--resume", "--out", my_run, "--device", "cpu", "--json"]
    assert NEEDS_CODE in run("train", *resume).error_line()
    told = run("train", *resume, "--code", my_file).json
    assert told["iterations"] == 2
    assert told["report"] == str(my_run / "report.html")
    assert run("train", my_file, *resume, *TINY_SHAPES).json["iterations"] == 2


def test_a_saved_recipe_trains_again_with_its_code(run: Run, my_run: Path, my_file: Path, tmp_path: Path) -> None:
    arguments = [my_run / "recipe.json", "--out", tmp_path / "again", "--no-report"]
    assert NEEDS_CODE in run("train", *arguments).error_line()
    assert not (tmp_path / "again").exists()
    train_elsewhere(*arguments, "--code", my_file, cwd=tmp_path)
    for file_name in ("recipe.json", "metrics.jsonl"):
        assert (tmp_path / "again" / file_name).read_bytes() == (my_run / file_name).read_bytes()


def test_a_recipe_with_parts_is_shown(run: Run, my_run: Path, my_file: Path) -> None:
    ended = run("recipes", "show", my_file)
    assert ended.code == 0, ended.stderr
    assert "tall DPM" in ended.stdout
    changed = run("recipes", "show", my_file, "--set", "model.dpm.settings.ratio=3", "--json")
    assert changed.json["recipe"]["model"]["dpm"]["settings"] == {"ratio": 3}
    assert NEEDS_CODE in run("recipes", "show", my_run / "recipe.json").error_line()
    shown = run("recipes", "show", my_run / "recipe.json", "--code", my_file, "--json").json
    assert shown["parameters"] == changed.json["parameters"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ('model.dpm={"kind": "custom", "name": "tal"}', "did you mean 'tall'?"),
        ('model.dpm.settings={"width": 3}', "and does not take that: missing a required argument: 'ratio'"),
        ("model.dpm.settings.ratio=wide", "part 'tall' failed: ValueError: could not convert"),
        ('model.adm.alignment={"kind": "custom", "name": "tall"}', "does not take that"),
        ("model.dpm.settings.rato=1", "did you mean 'model.dpm.settings.ratio'?"),
    ],
)
def test_a_wrong_part_is_one_line(run: Run, my_file: Path, tmp_path: Path, assignment: str, message: str) -> None:
    arguments = ["train", my_file, "--out", tmp_path / "run", "--device", "cpu", *TINY_SHAPES, "--set", assignment]
    assert message in run(*arguments).error_line()
    assert not (tmp_path / "run").exists()


def test_a_packaged_recipe_can_take_a_part_of_code(run: Run, my_file: Path) -> None:
    part = '{"kind": "custom", "name": "tall", "settings": {"ratio": 1}}'
    shown = run("recipes", "show", "quickstart", "--code", my_file, "--set", f"model.dpm={part}", "--json")
    assert shown.code == 0, shown.stderr
    assert shown.json["recipe"]["name"] == "quickstart"


def test_wrong_code_files_are_one_line(run: Run, my_run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("")
    for path, message in {
        empty: "defines no PARTS",
        tmp_path / "none.py": "does not exist",
        my_run / "recipe.json": "must be a .py file",
    }.items():
        assert message in run("eval", my_run, "--code", path).error_line()
