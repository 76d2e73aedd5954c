"""`aligncli runs` and `aligncli errors` as a user types them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.command_line import Run


@pytest.fixture
def two_runs(trained_run: Path, tmp_path: Path) -> Path:
    """A folder with two runs, one of which has not been evaluated, and one that is broken."""
    folder = tmp_path / "runs"
    shutil.copytree(trained_run, folder / "a")
    shutil.copytree(trained_run, folder / "deeper" / "runs" / "b")
    (folder / "deeper" / "runs" / "b" / "evaluation.json").unlink()
    shutil.copytree(trained_run, folder / "c")
    (folder / "c" / "recipe.json").write_text("{")
    return folder


def test_runs_are_listed_and_a_broken_one_is_named(run: Run, two_runs: Path) -> None:
    ended = run("runs", "list", two_runs)
    assert ended.code == 0
    assert "finished" in ended.stdout
    assert "2 of 2" in ended.stdout
    assert f"{two_runs / 'c'}: " in ended.stderr
    listed = {Path(item["run"]).name: item for item in run("runs", "list", two_runs, "--json").json}
    assert set(listed) == {"a", "b"}
    assert listed["a"]["finished"]
    assert not listed["b"]["finished"]
    assert listed["a"]["metrics"]["AP"] is not None


def test_an_empty_folder_says_how_to_begin(run: Run, tmp_path: Path) -> None:
    assert "aligncli train --out" in run("runs", "list", tmp_path).stdout
    assert "is no folder" in run("runs", "list", tmp_path / "gone").error_line()


def test_a_run_is_shown(run: Run, trained_run: Path) -> None:
    ended = run("runs", "show", trained_run)
    assert ended.code == 0, ended.stderr
    for expected in ("quickstart", "2 of 2 iterations", "7x7 RoIConv", "AP50", "model.safetensors"):
        assert expected in ended.stdout
    assert run("runs", "show", trained_run, "--json").json["environment"]["threads"] >= 1


def test_a_run_is_compared_with_itself(run: Run, trained_run: Path) -> None:
    ended = run("runs", "compare", trained_run, trained_run, "--samples", 100)
    assert ended.code == 0, ended.stderr
    assert "+0.0 to +0.0" in ended.stdout
    told = run("runs", "compare", trained_run, trained_run, "--samples", 100, "--json").json
    assert told["metrics"]["AP"]["delta"] == 0.0
    assert "holds no recipe.json" in run("runs", "compare", trained_run, trained_run.parent).error_line()


def test_errors_are_told(run: Run, trained_run: Path) -> None:
    ended = run("errors", trained_run)
    assert ended.code == 0, ended.stderr
    for expected in ("IoU 0.5", "loc.", "missed", "aspect > 3"):
        assert expected in ended.stdout
    (told,) = run("errors", trained_run, "--json").json
    assert {item["iou"] for item in told["errors"]} == {0.5, 0.75}
