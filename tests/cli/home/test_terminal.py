"""The command in a terminal of its own: what is asked there, and that nothing is asked elsewhere."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aligncli.cli.home import conversation
from tests.cli.command_line import Run, make_data_folder

pexpect = pytest.importorskip("pexpect", reason="there are no pseudo-terminals on Windows")
ESC, CTRL_C, DOWN = "\x1b", "\x03", "\x1b[B"
SECONDS = 300  # a busy machine takes long to start Python
Terminal = Callable[..., "pexpect.spawn"]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Start `aligncli` in a terminal of 80 columns, in an empty folder."""
    started: list[pexpect.spawn] = []

    def start(*arguments: str, **environment: str) -> pexpect.spawn:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "aligncli", *arguments],
            cwd=str(tmp_path),
            env={**os.environ, "TERM": "xterm-256color", **environment},
            encoding="utf-8",
            timeout=SECONDS,
            dimensions=(24, 80),
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def _exit_code(child: pexpect.spawn) -> int | None:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def test_a_number_runs_a_command_and_prints_it(terminal: Terminal) -> None:
    child = terminal()
    child.expect("Start here")
    child.expect("Esc goes back")
    child.send("5")
    child.expect_exact("$ aligncli runs list")
    child.expect("runs is no folder")
    assert _exit_code(child) == 2


@pytest.mark.parametrize(("key", "code"), [(ESC, 0), (CTRL_C, 130)])
def test_esc_and_ctrl_c_leave(terminal: Terminal, key: str, code: int) -> None:
    child = terminal()
    child.expect("Esc goes back")
    child.send(key)
    assert _exit_code(child) == code
    assert "Traceback" not in str(child.before)


def test_a_missing_recipe_is_asked_for(terminal: Terminal) -> None:
    child = terminal("recipes", "show")
    child.expect("Which recipe")
    child.send("quickst\r")
    child.expect_exact("$ aligncli recipes show quickstart")


def test_missing_data_are_asked_for(terminal: Terminal, tmp_path: Path) -> None:
    make_data_folder(tmp_path / "mine")
    child = terminal("data", "check")
    child.expect("Which data")
    child.send(DOWN + DOWN + "\r")  # past "another folder" and back to the first
    child.expect_exact("$ aligncli data check mine")


def test_whoever_leaves_a_question_reads_what_is_missing(terminal: Terminal, tmp_path: Path) -> None:
    make_data_folder(tmp_path / "mine")
    child = terminal("train", "photo")
    child.expect("Which data")
    child.send(ESC)
    child.expect("recipe 'photo' needs your images: add --data FOLDER")
    assert _exit_code(child) == 2


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        ((), {"TERM": "dumb"}, "Usage: aligncli"),
        (("recipes", "show", "--json"), {}, "Missing argument 'RECIPE'"),
        (("train", "--resume", "--json"), {}, "--resume needs the run to go on with: add --out DIR"),
    ],
)
def test_no_question_to_programs_and_plain_terminals(terminal: Terminal, arguments, environment, text: str) -> None:
    child = terminal(*arguments, **environment)
    child.expect_exact(text)
    _exit_code(child)


def test_nothing_is_asked_without_a_terminal(run: Run) -> None:
    assert run().stdout.startswith("Usage: aligncli")
    assert "'RECIPE'" in run("recipes", "show").error_line()
    assert "add --out DIR" in run("train", "--resume").error_line()
    assert "add --data FOLDER" in run("train", "photo").error_line()


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_both_ends_have_to_be_a_terminal(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, Tty())
    assert conversation.may_ask([])
    monkeypatch.setattr(sys, closed, io.StringIO())
    assert not conversation.may_ask([])


def test_opening_imports_no_torch(tmp_path: Path) -> None:
    code = f"""
import json, sys
sys.path.insert(0, {json.dumps(str(Path(__file__).parents[3]))})
import aligncli.cli.app
from aligncli.cli.home import screen
screen.choose = lambda title, items: None
screen.home()
print(json.dumps(sorted({{"torch", "numpy", "matplotlib", "PIL"}} & set(sys.modules))))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(ended.stdout) == []
