"""One look for all figures: colours that colour-blind readers tell apart, light paper, and the files they go to."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

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
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
MARKERS = "os^DvPX*"
HATCHES = ("", "////", "xxx", "||||", "...", "----")
MOST_COLUMNS = 4  # of a legend
LEGEND_PAD = 0.12  # inches that the layout leaves above and below a legend, together
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


def wrapped_label(text: str, width: int = 40) -> str:
    """As `plain_label`, but on as many lines as it needs: for names that differ only at their ends, such as paths."""
    return "\n".join(plain_label(line, width) for line in textwrap.wrap(printable(text), width))


def line_style(number: int, *, kind: int = 0, num_kinds: int = 1) -> dict[str, Any]:
    """Colour and dashes of series `number`, of which there may be lines of several kinds, in the same colour.

    Colours repeat, so kinds have dashes of their own, and other ones in each turn through the colours.
    """
    turn = number // len(SERIES) * num_kinds + kind
    dotted = (0, (5, 1.5) + (1.2, 1.5) * (turn - 2))  # past DASHES: a dash, then ever more dots
    return {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[turn] if turn < len(DASHES) else dotted}


def point_style(number: int) -> dict[str, Any]:
    """Colour and marker of series `number`, the same in one turn through the colours."""
    return {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number // len(SERIES) % len(MARKERS)]}


def bar_style(number: int) -> dict[str, Any]:
    """Colour and hatching of series `number`, which is white and only there from the second turn on."""
    hatch = HATCHES[number // len(SERIES) % len(HATCHES)]
    lines = {"hatch": hatch, "edgecolor": "white", "linewidth": 0} if hatch else {}
    return {"facecolor": SERIES[number % len(SERIES)]} | lines


def legend_outside(
    figure: Figure,
    handles: Sequence[Artist],
    labels: Sequence[str],
    *,
    place: str = "lower",
    columns: int = MOST_COLUMNS,
    **style: Any,
) -> Legend:
    """A legend below all panels (`place`: or "upper", above), in as many of the columns as fit the figure's width.

    The figure must have a constrained layout. It grows by the legend's height, so panels keep theirs.
    """
    style = {"loc": f"outside {place} center", "frameon": False, "fontsize": 9, "handlelength": 2.4} | style
    legend = figure.legend(handles, labels, ncols=1, **style)
    for count in range(min(columns, len(labels)), 1, -1):
        wide = figure.legend(handles, labels, ncols=count, **style)
        if wide.get_window_extent().width <= figure.bbox.width:
            legend.remove()
            legend = wide
            break
        wide.remove()
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi + LEGEND_PAD)
    return legend


def say(axes: Axes, text: str) -> None:
    """In the middle of axes that have nothing to show, why."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, style="italic")


def clean_axes(axes: Axes) -> None:
    """A faint grid behind the data, no box around it."""
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=MUTED, labelcolor=INK)
