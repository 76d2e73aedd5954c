"""`aligncli report`, and the report that a training ends with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.command_line import TINY_SHAPES, Run


def test_a_training_ends_with_its_report(run: Run, tmp_path: Path) -> None:
    short = [word for word in TINY_SHAPES if word != "--no-report"]
    told = run("train", "--device", "cpu", "--out", tmp_path / "run", "--json", *short).json
    report = tmp_path / "run" / "report.html"
    assert told["report"] == str(report)
    html = report.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "RoIConv 7×7" in html  # alignment was measured, with the run's own weights
    assert (tmp_path / "run" / "pictures" / "alignment.png").is_file()


def test_no_report_is_written_where_none_is_wanted(trained_run: Path) -> None:
    assert not (trained_run / "report.html").exists()


def test_runs_are_reported_and_compared(
    run: Run, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    told = run("report", trained_run, other, "--device", "cpu", "--images", 1, "--json").json
    assert told == {"runs": [str(trained_run), str(other)], "report": "comparison.html"}
    html = Path("comparison.html").read_text(encoding="utf-8")
    assert "2 runs side by side" in html
    chosen = tmp_path / "new" / "one.html"
    ended = run("report", other, "--device", "cpu", "--images", 1, "--out", chosen)
    assert ended.code == 0, ended.stderr
    assert f"report: {chosen}" in ended.stdout
    assert chosen.is_file()
    assert not (other / "report.html").exists()


def test_a_wrong_name_is_told_in_one_line(run: Run, trained_run: Path, tmp_path: Path) -> None:
    assert "holds no recipe.json" in run("report", tmp_path).error_line()
    assert "holds no recipe.json" in run("report", trained_run, tmp_path).error_line()
    assert f"--out {tmp_path} is a folder" in run("report", trained_run, "--out", tmp_path).error_line()
    assert list(tmp_path.iterdir()) == []
