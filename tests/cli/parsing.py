"""Command lines held against the real command line interface: read, never run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import typer

from aligncli.cli.app import app

ROOT: Any = typer.main.get_command(app)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words: ("data", "check")."""
    for name, command in ROOT.commands.items():
        inner = getattr(command, "commands", {})
        if inner:
            yield from (((name, below), inner[below]) for below in inner)
        else:
            yield (name,), command


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The values that a command line (without `aligncli`) gives its command. Raises typer's UsageErrors.

    An option of `aligncli` itself acts as soon as it is read, so it is only looked up.
    """
    command, name, rest = ROOT, "aligncli", list(arguments)
    while getattr(command, "commands", {}) and rest and not rest[0].startswith("-"):
        name, command, rest = command.resolve_command(typer.Context(command, info_name=name), rest)
    if command is ROOT:
        known = {option for parameter in ROOT.params for option in parameter.opts}
        assert set(rest) <= known | {"--help"}, rest
        return {}
    return command.make_context(name, rest).params
