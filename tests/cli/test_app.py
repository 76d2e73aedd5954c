"""The entry point: quick help without torch, and one boundary where every error ends."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

from tests.cli.command_line import Run

COMMANDS = [
    ["train"],
    ["eval"],
    ["predict"],
    ["analyze-alignment"],
    ["import"],
    ["extract"],
    ["export"],
    ["doctor"],
    ["recipes", "list"],
    ["recipes", "show"],
    ["data", "check"],
    ["data", "stats"],
    ["data", "view"],
    ["bench", "op"],
    ["bench", "model"],
]
HELP_WITHOUT_TORCH = """
import sys
from aligncli.cli.app import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "torchvision", "matplotlib", "PIL", "pycocotools"} & set(sys.modules)
    assert not heavy, heavy
"""


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["recipes", "list"], ["recipes", "list", "--json"]]
)
def test_what_needs_no_model_imports_no_torch(arguments: list[str]) -> None:
    ended = _python("-c", HELP_WITHOUT_TORCH, *arguments)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", [[], ["recipes"], ["data"], ["bench"], *COMMANDS])
def test_every_command_explains_itself(run: Run, command: list[str]) -> None:
    ended = run(*command, "--help")
    assert ended.code == 0
    assert ended.stdout.startswith("Usage: aligncli " + " ".join(command))
    assert ended.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_debug_and_json(run: Run, command: list[str]) -> None:
    ended = run(*command, "--help")
    assert "--debug" in ended.stdout
    assert "--json" in ended.stdout


@pytest.mark.parametrize("group", [[], ["recipes"], ["data"], ["bench"]])
def test_a_group_alone_shows_its_help(run: Run, group: list[str]) -> None:
    ended = run(*group)
    assert ended.code == 0
    assert ended.stdout == run(*group, "--help").stdout


def test_the_version_is_the_distributions(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.stdout) == (0, f"aligncli {version('aligncli')}\n")


def test_python_dash_m_is_the_command() -> None:
    assert _python("-m", "aligncli", "--version").stdout == f"aligncli {version('aligncli')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "--sed", "3"], "--seed"),
        (["train", "--seed", "many"], "'--seed'"),
        (["train", "--seed", "-1"], "'--seed'"),
        (["train", "--amp", "int8"], "'--amp'"),
        (["eval", "run", "--split", "tests"], "'--split'"),
        (["predict"], "'RUN'"),
        (["predict", "run", "image", "--score", "2"], "'--score'"),
        (["data", "view", "shapes", "--count", "0"], "'--count'"),
    ],
)
def test_a_usage_error_is_one_line_too(run: Run, arguments: list[str], message: str) -> None:
    line = run(*arguments).error_line()
    assert message in line
    assert line.endswith("--help)")


def _raise_in_recipes_list(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> list[str]:
        raise error

    monkeypatch.setattr("aligncli.catalog.recipe_names", fail)


def test_a_bug_is_one_line_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise_in_recipes_list(monkeypatch, ZeroDivisionError("first\nsecond"))
    ended = run("recipes", "list")
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr == (
        "internal error: ZeroDivisionError: first second (run again with --debug for the traceback)\n"
    )


def test_debug_shows_the_traceback_and_ends_in_the_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise_in_recipes_list(monkeypatch, ZeroDivisionError("oh"))
    ended = run("recipes", "list", "--debug")
    assert ended.code == 1
    assert ended.stderr.startswith("Traceback (most recent call last):")
    assert ended.stderr.endswith("\ninternal error: ZeroDivisionError: oh\n")


def test_debug_shows_the_traceback_of_a_users_error_too(run: Run) -> None:
    ended = run("recipes", "show", "quikstart", "--debug")
    assert ended.code == 2
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: unknown recipe")


def test_ctrl_c_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise_in_recipes_list(monkeypatch, KeyboardInterrupt())
    ended = run("recipes", "list")
    assert (ended.code, ended.stdout, ended.stderr.strip()) == (130, "", "stopped: by Ctrl-C")


def test_an_error_of_the_file_system_names_the_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise_in_recipes_list(monkeypatch, PermissionError(13, "Permission denied", "/root/x"))
    assert run("recipes", "list").error_line() == "/root/x: Permission denied"


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m aligncli recipes list | head -n 1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stderr == ""


@pytest.mark.parametrize("name", ["[red]recipe[/red]", "[/]", "\x1b[31mrecipe", "re\ncipe", "\udcff"])
def test_a_users_text_is_printed_as_text(run: Run, name: str) -> None:
    line = run("recipes", "show", name).error_line()
    assert "\x1b" not in line
    assert "unknown recipe" in line
    if name.startswith("["):
        assert name in line


def test_a_name_that_the_terminal_cannot_write_is_no_crash() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "aligncli", "recipes", "show", "日本"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown recipe '??'")


@pytest.mark.parametrize("command", [["train"], ["recipes", "show"]])
def test_a_recipe_that_is_a_file_is_said_to_be_code(run: Run, command: list[str]) -> None:
    assert "is code and is run" in " ".join(run(*command, "--help").stdout.split())


def test_a_cpu_without_memory_for_a_tensor_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*_: object, **__: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr("aligncli.catalog.recipe_names", allocate)
    assert run("recipes", "list").error_line() == ("not enough memory: lower the size of batch, images or network")
