"""A list in a terminal: arrow keys, numbers, searching, Esc and Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from aligncli.cli.home.menu import Item, Menu, ask_path, choose

DOWN, UP, ENTER, ESC, CTRL_C, BACKSPACE = "\x1b[B", "\x1b[A", "\r", "\x1b", "\x03", "\x7f"
FRUIT = [Item(name, name, section="Fruit") for name in ("apple", "banana", "cherry")]
ITEMS = [*FRUIT, Item("date", "date", section="Other", command="aligncli date")]


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


@pytest.fixture
def typing(keyboard: PipeInput) -> Callable[[str], str | None]:
    """What is chosen by somebody who presses these keys."""

    def choose_by(keys: str) -> str | None:
        keyboard.send_text(keys)
        return choose("Which one?", ITEMS)

    return choose_by


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (ENTER, "apple"),
        (DOWN + DOWN + ENTER, "cherry"),
        (UP + ENTER, "date"),
        (DOWN * 5 + ENTER, "banana"),
        ("3", "cherry"),
        ("9" + "0" + ENTER, "apple"),
        ("an" + ENTER, "banana"),
        ("aligncli" + ENTER, "date"),
        ("zz" + ENTER + BACKSPACE * 2 + "CH" + ENTER, "cherry"),
        ("an" + BACKSPACE * 3 + ENTER, "apple"),
        (ESC, None),
    ],
)
def test_keys_choose(typing, keys: str, chosen: str | None) -> None:
    assert typing(keys) == chosen


def test_ctrl_c_leaves(typing) -> None:
    with pytest.raises(KeyboardInterrupt):
        typing(CTRL_C)


def test_a_path_is_typed_and_esc_leaves(keyboard: PipeInput) -> None:
    keyboard.send_text("some/folder" + ENTER)
    assert ask_path("Where", only_folders=True) == "some/folder"
    keyboard.send_text(ESC)
    assert ask_path("Where", only_folders=True) is None


def test_each_section_has_one_heading_and_the_first_nine_lines_have_numbers() -> None:
    menu = Menu([Item(f"line {row}", row, section="ab"[row // 6]) for row in range(12)])
    text = "".join(part[1] for part in menu.lines()[0])
    lines = [line for line in text.splitlines() if line]
    assert [line for line in lines if "line" not in line] == ["a", "b"]
    assert lines[1] == " 1  line 0 "
    assert lines[10:12] == [" 9  line 8 ", "    line 9 "]


def test_the_row_of_the_line_that_is_pointed_at_counts_headings() -> None:
    menu = Menu(ITEMS)
    for row in (1, 2, 3, 6):  # below the first heading; below an empty line and the second one
        parts, pointed = menu.lines()
        text = "".join(part[1] for part in parts)
        assert pointed == row
        assert menu.chosen is not None
        assert menu.chosen.text in text.splitlines()[pointed]
        menu.move(1)


def test_names_from_the_disk_are_text(keyboard: PipeInput) -> None:
    menu = Menu([Item("\x1b[31mred\nrun", 0)])
    assert "\x1b" not in "".join(part[1] for part in [*menu.lines()[0], *menu.footer()])
    assert menu.lines()[0][0][1].count("\n") == 0
