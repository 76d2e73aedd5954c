"""A list to choose from in a terminal, and a line to type; the only module that knows prompt_toolkit.

Arrow keys or the number of a line choose, letters search, Esc goes back, Ctrl-C leaves. No colour but the
terminal's own, so that it reads on light and on dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.completion import PathCompleter
from prompt_toolkit.data_structures import Point
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import Dimension, HSplit, Layout, Window
from prompt_toolkit.layout.controls import FormattedTextControl

from aligncli.cli.render import printable

HELP = "arrow keys or a number choose, letters search, Esc goes back"
NUM_NUMBERED = 9  # lines that one digit can choose
SECONDS_AFTER_ESC = 0.05  # what comes later is no part of an arrow key's code

Value = TypeVar("Value")


@dataclass(frozen=True)
class Item(Generic[Value]):
    """A line of a menu. `section` is its heading; `command`, what choosing it stands for, is shown at the bottom."""

    text: str
    value: Value
    section: str = ""
    command: str = ""


class Menu(Generic[Value]):
    """The state of a list: what is searched for, and which of the found lines is pointed at."""

    def __init__(self, items: Sequence[Item[Value]]) -> None:
        self._items = items
        self.search = ""
        self.pointed = 0

    @property
    def found(self) -> list[Item[Value]]:
        """The items that hold what is searched for."""
        wanted = self.search.lower()
        return [item for item in self._items if wanted in f"{item.text} {item.command}".lower()]

    @property
    def chosen(self) -> Item[Value] | None:
        """The item that is pointed at; None where nothing is found."""
        return self.found[self.pointed] if self.found else None

    def move(self, step: int) -> None:
        """Point at another line; after the last comes the first."""
        self.pointed = (self.pointed + step) % max(1, len(self.found))

    def look_for(self, text: str) -> None:
        self.search, self.pointed = text, 0

    def take_number(self, number: int) -> bool:
        """Point at the line with this number (from 1), if there is one."""
        exists = 1 <= number <= len(self.found)
        self.pointed = number - 1 if exists else self.pointed
        return exists

    def lines(self) -> tuple[StyleAndTextTuples, int]:
        """The list as prompt_toolkit takes it, and the row of the line that is pointed at."""
        parts: StyleAndTextTuples = []
        row = pointed_row = 0
        section = ""
        for index, item in enumerate(self.found):
            if item.section != section:
                section = item.section
                heading = f"\n{section}\n" if parts else f"{section}\n"
                parts.append(("bold", heading))
                row += heading.count("\n")
            if index == self.pointed:
                pointed_row = row
            key = str(index + 1) if index < NUM_NUMBERED and not self.search else " "
            parts.append(("reverse" if index == self.pointed else "", f" {key}  {printable(item.text)} "))
            parts.append(("", "\n"))
            row += 1
        return (parts or [("", "nothing is called so\n")]), pointed_row

    def footer(self) -> StyleAndTextTuples:
        """The command behind the line, or else the whole line, which may be cut above; and the keys."""
        item = self.chosen
        about = "" if item is None else f"$ {item.command}" if item.command else " ".join(item.text.split())
        keys = f"search: {self.search}" if self.search else HELP
        return [("bold", f"{printable(about)}\n"), ("", keys)]


def choose(title: str, items: Sequence[Item[Value]]) -> Value | None:
    """The value of the item that the user chooses; None for Esc. Raises KeyboardInterrupt."""
    menu = Menu(items)
    listed = FormattedTextControl(
        lambda: menu.lines()[0], get_cursor_position=lambda: Point(0, menu.lines()[1]), show_cursor=False
    )
    first, _, rest = title.partition("\n")
    head = Window(
        FormattedTextControl([("bold", first), ("", f"\n{rest}")]),
        dont_extend_height=True,
        height=title.count("\n") + 2,
    )
    body = Window(listed, height=Dimension(min=1), dont_extend_height=True)
    foot = Window(FormattedTextControl(menu.footer), height=Dimension(min=2, max=3), wrap_lines=True)
    application: Application[Value | None] = Application(
        Layout(HSplit([head, body, Window(height=1), foot]), focused_element=body),
        key_bindings=_keys(menu),
        erase_when_done=True,
    )
    application.ttimeoutlen = SECONDS_AFTER_ESC
    return application.run()


def ask_path(question: str, *, only_folders: bool) -> str | None:
    """A path that the user types, with completion; None for Esc or nothing. Raises KeyboardInterrupt."""
    keys = KeyBindings()

    @keys.add("escape", eager=True)
    def leave(event: KeyPressEvent) -> None:
        event.app.exit(result="")

    session: PromptSession[str] = PromptSession(
        f"{question}: ",
        completer=PathCompleter(only_directories=only_folders, expanduser=True),
        key_bindings=keys,
        erase_when_done=True,
    )
    session.app.ttimeoutlen = SECONDS_AFTER_ESC
    typed = session.prompt().strip()
    return str(Path(typed).expanduser()) if typed else None


def _keys(menu: Menu[Value]) -> KeyBindings:
    keys = KeyBindings()
    for key, step in (("down", 1), ("tab", 1), ("up", -1), ("s-tab", -1)):
        keys.add(key)(lambda _, step=step: menu.move(step))
    keys.add("backspace")(lambda _: menu.look_for(menu.search[:-1]))

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        if menu.chosen is not None:
            event.app.exit(result=menu.chosen.value)

    @keys.add("escape", eager=True)
    def escape(event: KeyPressEvent) -> None:
        if menu.search:
            menu.look_for("")
        else:
            event.app.exit(result=None)

    @keys.add("c-c")
    @keys.add("c-d")
    @keys.add("<sigint>")
    def interrupt(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt())

    @keys.add("<any>")
    def typed(event: KeyPressEvent) -> None:
        if event.data.isdecimal() and not menu.search:
            if menu.take_number(int(event.data)):
                enter(event)
        elif event.data.isprintable():
            menu.look_for(menu.search + event.data)

    return keys
