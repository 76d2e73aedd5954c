"""What a shell completes: commands, recipes, studies and runs, without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aligncli.cli.completion import complete_recipe, complete_run, complete_study
from tests.cli.command_line import Run, make_run_folder

COMPLETE_WITHOUT_TORCH = """
import sys
from aligncli.cli.app import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


@pytest.fixture
def complete(tmp_path: Path):
    """What bash is offered for the last of some words, in a folder with one run."""
    make_run_folder(tmp_path / "runs" / "first")

    def offer(line: str) -> list[str]:
        asked = {"_ALIGNCLI_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        ended = subprocess.run(
            [sys.executable, "-c", COMPLETE_WITHOUT_TORCH],
            env=os.environ | asked,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stderr == ""
        return ended.stdout.split()

    return offer


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("aligncli pre", ["predict"]),
        ("aligncli train quick", ["quickstart"]),
        ("aligncli ablate align", ["aligndet", "alignment", "alignment_1x1"]),
        ("aligncli eval ", ["runs/first"]),
    ],
)
def test_bash_is_offered_what_there_is(complete, line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_recipes_and_studies_come_with_a_summary() -> None:
    assert ("all", "every one of them") in complete_study("")
    assert all(name.startswith("photo") and summary for name, summary in complete_recipe("photo"))
    assert len(complete_recipe("photo")) == 2


def test_pilots_are_no_ablation() -> None:
    assert complete_study("pilot") == []


def test_runs_of_every_usual_place_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("runs/a", "studies/runs/b"):
        make_run_folder(tmp_path / place)
    assert set(complete_run("")) == {"runs/a", "studies/runs/b"}
    assert complete_run("st") == ["studies/runs/b"]
    assert complete_run("nothing") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shells_script_can_be_shown(run: Run, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    ended = run("--show-completion")
    assert ended.code == 0
    assert "aligncli" in ended.stdout
