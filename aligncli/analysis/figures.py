"""One look for all figures: colours that colour-blind readers tell apart, light paper, and the files they go to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aligncli.analysis.pictures import PALETTE
from aligncli.plain import printable

FORMATS = ("png", "pdf", "svg")
DPI = 200  # of the PNG file
Colour = tuple[float, float, float]  # RGB, 0..1, as matplotlib wants it


def _for_matplotlib(colour: tuple[int, int, int]) -> Colour:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


ORANGE, SKY, GREEN, YELLOW, VERMILLION, PURPLE, BLUE = map(_for_matplotlib, PALETTE)
SERIES: tuple[Colour, ...] = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)  # of lines side by side, in this order
INK, MUTED, GRID = "#1e1e1e", "#6b7480", "#d5dae0"
# Embedded TrueType fonts can be searched and edited; a fixed salt and no date make equal figures equal files.
_STYLE: Any = {"pdf.fonttype": 42, "svg.hashsalt": "aligncli", "font.size": 10.5}
_METADATA = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


@contextmanager
def figure_style() -> Iterator[None]:
    """Fonts for what is drawn and saved inside."""
    with matplotlib.rc_context(_STYLE):
        yield


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `folder`/`name`.png, .pdf and .svg; the folder is made. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in FORMATS]
    with figure_style():
        for path, suffix in zip(paths, FORMATS, strict=True):
            figure.savefig(path, format=suffix, dpi=DPI, metadata=_METADATA[suffix])
    return paths


def plain_label(text: str, length: int = 40) -> str:
    """A user's text as a label: on one line, shortened, `$` no formula; legends leave out what begins with `_`."""
    line = printable(text)
    short = line if len(line) <= length else line[: length - 1] + "…"
    hidden = "\N{ZERO WIDTH SPACE}" if short.startswith("_") else ""
    return hidden + short.replace("$", r"\$")


def clean_axes(axes: Axes) -> None:
    """A faint grid behind the data, no box around it."""
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=MUTED, labelcolor=INK)
