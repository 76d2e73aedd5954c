"""The picture of `aligncli bench train --vary`: time above, memory below, a column a quantity."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from aligncli.analysis.bench.growth import TITLES, Growth
from aligncli.analysis.figures import clean_axes, legend_outside, line_style, point_style, wrapped_label

COLUMN, HEIGHT = 3.0, 5.0  # inches
CONDITIONS_WIDTH = 90  # characters


def plot_growth(growths: Sequence[Growth], conditions: str = "") -> bytes:
    """A PNG; axes start at 0 but for the quantity's, which is logarithmic. Memory has no row where it is unknown."""
    with_memory = any(value for growth in growths for line in growth.lines for value in line.peak_memory)
    rows = 2 if with_memory else 1
    size = (max(6.0, COLUMN * len(growths)), HEIGHT * rows / 2 + 0.45)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(rows, len(growths), squeeze=False, sharex="col")
    for column, growth in enumerate(growths):
        _draw(axes[0, column], growth, [[None if s is None else s * 1e3 for s in x.seconds] for x in growth.lines])
        if with_memory:
            peaks = [[None if m is None else m / 1e6 for m in line.peak_memory] for line in growth.lines]
            _draw(axes[1, column], growth, peaks)
        axes[-1, column].set_xlabel(TITLES[growth.sweep.quantity])
    axes[0, 0].set_ylabel("one step, ms")
    axes[-1, 0].set_ylabel("peak memory, MB" if with_memory else "one step, ms")
    handles, names = axes[0, 0].get_legend_handles_labels()
    legend_outside(figure, handles, names, place="upper", columns=len(names))
    if conditions:
        figure.supxlabel(wrapped_label(conditions, CONDITIONS_WIDTH), fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw(axes: Axes, growth: Growth, columns: Sequence[Sequence[float | None]]) -> None:
    for number, (line, values) in enumerate(zip(growth.lines, columns, strict=True)):
        known = [(x, y) for x, y in zip(growth.sweep.values, values, strict=True) if y is not None]
        style = point_style(number) | line_style(number)
        label = wrapped_label(line.name)
        axes.plot([x for x, _ in known], [y for _, y in known], label=label, markersize=4, **style)
    axes.set_xscale("symlog" if 0 in growth.sweep.values else "log")
    axes.xaxis.set_major_locator(FixedLocator([float(value) for value in growth.sweep.values]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{value:,}" for value in growth.sweep.values])
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    clean_axes(axes)
