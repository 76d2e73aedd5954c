"""A command line is run; in a terminal, what it lacks is asked for first, and the whole command printed.

Elsewhere it is run as it is. Menus are imported when a question comes up: a whole command line waits for none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from aligncli.cli.describe import command_line
from aligncli.cli.render import Output
from aligncli.environment import launched_place, terminal_can_redraw
from aligncli.errors import MissingChoice

Call = Callable[[Sequence[str]], int | None]
# Click's class, or the copy of it that newer typers carry.
MissingParameter: Any = sys.modules[typer.BadParameter.__module__].MissingParameter


def may_ask(arguments: Sequence[str]) -> bool:
    """Whether a person sits before this process: never with --json, in a pipe, or in one of several processes."""
    return (
        sys.stdin.isatty()
        and sys.stdout.isatty()
        and terminal_can_redraw()
        and "--json" not in arguments
        and launched_place() is None
    )


def run_with_questions(arguments: Sequence[str], call: Call) -> int | None:
    """`call(arguments)`; in a terminal, with what they lack. None at all: with what the home screen puts together.

    Whoever leaves a question gets the error that stands where nobody is asked. Raises what `call` does.
    """
    if not may_ask(arguments):
        return call(arguments)
    if not arguments:
        from aligncli.cli.home.screen import home

        chosen = home()
        if chosen is None:
            return 0
        arguments = _tell(chosen)
    while True:
        try:
            return call(arguments)
        except (MissingChoice, MissingParameter) as error:
            answer = _ask_for(error)
            if not answer:
                raise
            arguments = _tell([*arguments, *answer])


def _ask_for(error: Any) -> list[str]:
    """What is to be added to the command line; nothing where no question would help, or the user leaves it."""
    from aligncli.cli.home.questions import QUESTIONS

    if isinstance(error, MissingChoice):
        asked = error.option
        option = asked if asked.startswith("-") else ""
    else:
        option, asked = "", error.param.metavar
    ask = QUESTIONS.get(asked)
    answer = ask() if ask else None
    if answer is None:
        return []
    return [option, answer] if option else [answer]


def _tell(arguments: Sequence[str]) -> Sequence[str]:
    Output().heading(f"$ {command_line(arguments)}")
    return arguments
