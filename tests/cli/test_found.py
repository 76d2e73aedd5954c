"""Runs and data sets near the working folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aligncli.cli import found
from aligncli.cli.found import DataFolder, data_format_of, find_data, find_run_folders, recent_runs
from tests.cli.command_line import make_data_folder, make_run_folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_found_in_the_usual_places_the_newest_first(here: Path) -> None:
    places = ["runs/a", "studies/runs/b", "c"]
    for age, place in enumerate(places):
        make_run_folder(here / place)
        for path in (here / place).iterdir():
            os.utime(path, (1000 - age, 1000 - age))
    assert find_run_folders() == [Path(place) for place in places]
    assert [run.path for run in recent_runs(2)] == [Path("runs/a"), Path("studies/runs/b")]


def test_a_run_that_cannot_be_read_does_not_take_a_place(here: Path) -> None:
    for name in ("good", "broken"):
        make_run_folder(here / "runs" / name)
    (here / "runs" / "broken" / "recipe.json").write_text("{")
    assert [run.path.name for run in recent_runs(3)] == ["good"]


def test_data_sets_are_told_apart_by_their_files(here: Path) -> None:
    make_data_folder(here / "photos")
    for name in ("deep/voc/Annotations", "deep/voc/JPEGImages", "yolo", ".hidden/annotations"):
        (here / name).mkdir(parents=True)
    (here / "yolo" / "data.yaml").touch()
    (here / ".hidden" / "annotations" / "instances_val.json").touch()
    assert find_data() == [
        DataFolder(Path("photos"), "coco"),
        DataFolder(Path("yolo"), "yolo"),
        DataFolder(Path("deep/voc"), "voc"),
    ]
    assert data_format_of(here) is None
    assert data_format_of(here / "nowhere") is None


def test_cocos_own_layout_is_found(here: Path) -> None:
    (here / "coco" / "annotations").mkdir(parents=True)
    (here / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps({}))
    assert find_data() == [DataFolder(Path("coco"), "coco")]


def test_looking_ends_in_a_large_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "MAX_FOLDERS", 3)
    for name in ("a", "b", "z"):
        make_data_folder(here / name)
    assert [data.path.name for data in find_data()] == ["a", "b"]  # the working folder was the first


def test_a_folder_that_may_not_be_read_is_passed_over(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data_folder(here / "photos")
    scandir = os.scandir

    def refuse(path: str | Path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (here / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    assert find_data() == [DataFolder(Path("photos"), "coco")]
