"""`aligncli data download`: says what it does; what is there is kept. The server's side is in tests/data."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligncli.data import download
from tests.cli.command_line import Run


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been fetched."""
    names: list[str] = []

    def get(archive: download.Archive, folder: Path, progress: download.Progress) -> None:
        progress(f"fetching {archive.name}", 1, 1)
        (folder / archive.folder).mkdir(parents=True)
        names.append(archive.folder)

    monkeypatch.setattr(download, "get", get)
    monkeypatch.setattr(download, "require_room", lambda archives, folder: None)
    return names


def test_what_is_there_is_not_fetched(run: Run, fetched: list[str], tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    ended = run("data", "download", "coco", "--out", tmp_path, "--val-only")
    assert fetched == ["val2017"]
    assert ended.stdout.splitlines() == [f"{tmp_path}/annotations was there", f"{tmp_path}/val2017"]
    assert "0.8 GB from http://images.cocodataset.org" in ended.stderr


def test_all_of_it_is_ready_for_the_papers_recipes(run: Run, fetched: list[str], tmp_path: Path) -> None:
    told = run("data", "download", "coco", "--out", tmp_path / "new", "--json").json
    assert told == {"folder": str(tmp_path / "new"), "fetched": ["annotations", "val2017", "train2017"]}
    again = run("data", "download", "coco", "--out", tmp_path / "new")
    assert "aligncli train aligndet_r50 --data" in again.stdout
    assert again.stderr == ""


def test_an_unknown_data_set_is_one_line(run: Run) -> None:
    assert "'imagenet' is not one of 'coco'" in run("data", "download", "imagenet").error_line()
