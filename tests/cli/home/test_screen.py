"""The home screen: keys that put a command line together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from aligncli.cli.home import screen
from aligncli.cli.home.menu import Item
from aligncli.cli.home.questions import QUESTIONS
from aligncli.engine.run_list import summarize
from tests.cli.command_line import make_data_folder, make_run_folder
from tests.cli.parsing import commands, parse

ENTER = "\r"
Home = Callable[[str], list[str] | None]


@pytest.fixture
def press(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home screen of a folder with one run and one data set of each format, and its keys."""
    monkeypatch.chdir(tmp_path)
    make_run_folder(tmp_path / "runs" / "first")
    make_data_folder(tmp_path / "photos")
    for folder in ("voc/Annotations", "voc/JPEGImages", "yolo"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "yolo" / "classes.txt").touch()

    def press_keys(keys: str) -> list[str] | None:
        with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
            keyboard.send_text(keys)
            return screen.home()

    return press_keys


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        ("2", "train"),
        ("6", "runs list"),
        ("7", "doctor"),
        ("11", "runs show runs/first"),
        ("12", "eval runs/first --per-class"),
        ("13cat.png" + ENTER, "predict runs/first cat.png"),
        ("15", "report runs/first"),
        ("171", "runs compare runs/first runs/first"),
        ("18", "train --resume --out runs/first"),
        ("19", "export runs/first --verify"),
        ("3quickstart" + ENTER, "train quickstart"),
        ("3photo_lite" + ENTER + "1", "train photo_lite0 --data photos"),
        ("411", "data check photos"),
        ("414", "train --data photos"),
        ("421", "data convert voc voc --out voc_coco"),
        ("431", "data convert yolo yolo --out yolo_coco"),
        ("44nowhere" + ENTER + "photos" + ENTER + "1", "data check photos"),
        ("521", "pilot --dry-run"),
        ("533", "pilot --roiconv --seeds 3"),
        ("542", "ablate aligndet"),
        ("5" + "91" + "1", "ablate testdev --scale coco --data photos --dry-run"),
    ],
)
def test_every_choice_is_a_command(press: Home, keys: str, command: str) -> None:
    assert press(keys) == command.split()
    parse(command.split())


def test_whoever_comes_back_from_a_question_sees_the_menu_again(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = iter([lambda: None, ["train"]])
    monkeypatch.setattr(screen, "choose", lambda title, items: next(chosen))
    assert screen.home() == ["train"]


def test_what_is_shown_at_the_bottom_is_what_a_choice_becomes(press: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Item] = []

    def look(title: str, items: list[Item]) -> None:
        shown.extend(items)

    monkeypatch.setattr(screen, "choose", look)
    assert screen.home() is None
    ready = [item for item in shown if isinstance(item.value, list)]
    assert len(ready) >= 3
    assert all(item.command == " ".join(["aligncli", *item.value]) for item in ready)


def test_the_screen_says_what_is_here(press: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(screen, "choose", lambda title, items: titles.append(title))
    screen.home()
    for text in ("aligncli ", "device   ", "kernels  ", "embedded shapes, photos (coco), voc (voc), yolo (yolo)"):
        assert text in titles[0]


def test_only_arguments_and_options_that_exist_are_asked_for() -> None:
    parameters = [parameter for _, command in commands() for parameter in command.params]
    names = {name for parameter in parameters for name in (parameter.metavar, *parameter.opts)}
    assert set(QUESTIONS) <= names


def test_long_paths_are_cut_so_that_every_column_fits_80(tmp_path: Path) -> None:
    line = screen._run_line(replace(summarize(make_run_folder(tmp_path)), path=Path("runs") / ("x" * 90)))
    assert len(f" 1  {line} ") <= 80
    assert line.startswith("...xxx")
