"""Paths, commands and metrics as commands print them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from aligncli.cli.render import Output
from aligncli.cli.tables import number

AP_COLUMNS = ("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl")
AR_COLUMNS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def shell_path(path: Path) -> str:
    """A path that can be pasted into a shell."""
    return shlex.quote(str(path))


def command_line(arguments: Sequence[str]) -> str:
    """A command as one types it."""
    return shlex.join(["aligncli", *arguments])


def show_metrics(
    output: Output, metrics: Mapping[str, float], *, title: str, area_bins: tuple[float, float], paper: str = ""
) -> None:
    """The COCO metrics as tables, in percent, with what the paper reports for the setting."""
    small, large = (f"{limit**0.5:.0f}" for limit in area_bins)
    output.heading(title)
    for columns in (AP_COLUMNS, AR_COLUMNS):
        output.table(columns, [[number(metrics[name]) for name in columns]], text_columns=0)
    output.line(f"percent; s, m, l: objects below {small}^2, below {large}^2 and from {large}^2 pixels")
    if paper:
        output.line(f"paper: {paper}")
