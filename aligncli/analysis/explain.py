"""The picture of docs/roi_conv.md: where a convolution and a RoIConv read the same map for the same cell.

Drawn from the operator's own geometry (aligncli.ops): boxes are xyxy pixels, the axes are cells of the map,
x / S and y / S, where cell (X, Y) has its centre at (X + .5, Y + .5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, Rectangle

from aligncli.analysis.pictures import PALETTE
from aligncli.ops import implicit_rois, sampling_points

ORANGE, BLUE, VERMILLION = (tuple(part / 255 for part in PALETTE[index]) for index in (0, 6, 4))
INK, MUTED, GRID, OBJECT = "#1e1e1e", "#6b7480", "#d5dae0", "#e6ebf1"
MAP = (10, 14)  # height, width in cells
STRIDE = 16  # pixels a cell
CELL = (5, 4)  # X, Y: the one whose output is explained
BOX = (36.0, 24.0, 180.0, 128.0)  # its anchor, xyxy pixels


def draw_roi_conv(*, kernel_size: int = 3, cell: tuple[int, int] = CELL, box: Sequence[float] = BOX) -> Figure:
    """A figure of two panels: a k x k convolution at `cell` (X, Y), and a RoIConv that reads in `box` instead.

    The box is xyxy in pixels of an input with STRIDE pixels a cell. The ellipse in it stands for an object.
    """
    column, row = cell
    own_box = implicit_rois(*MAP, kernel_size, STRIDE)[row, column].tolist()
    figure = Figure(figsize=(11, 4.7), dpi=160, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.06)  # type: ignore[union-attr]
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        _draw_map(axes, cell, box)
    own_taps, box_taps = (_taps(one, kernel_size) for one in (own_box, box))
    _draw_box(left, own_box, kernel_size, BLUE, "its implicit RoI")
    _draw_taps(left, own_taps, BLUE)
    _draw_touched_cells(right, box_taps[-1])
    _draw_box(right, box, kernel_size, VERMILLION, "its refined anchor")
    _draw_moves(right, own_taps, box_taps)
    _draw_taps(right, box_taps, VERMILLION)
    _remark(left, "the cell of\nthis output", at=(column + 3, row + 1), about=(column + 1, row + 1), align="left")
    _remark(right, "a tap blends four cells", at=(box_taps[-1][0], MAP[0] - 1), about=box_taps[-1] + np.array((0, 0.2)))
    left.text(
        *(_center(box) + np.array((0.5, 2.3))),
        "an object",
        color=MUTED,
        fontsize=12,
        style="italic",
        ha="center",
        zorder=6,
    )
    name = f"{kernel_size} × {kernel_size}"
    _caption(
        left, f"Convolution, {name}", "taps around the cell", r"tap $j$ reads at  $X + j - \lfloor k/2 \rfloor + ½$"
    )
    _caption(
        right, f"RoIConv, {name}", "taps inside a box", r"tap $j$ reads at  $x_1/S + (x_2 - x_1)/S \cdot (j + ½)/k$"
    )
    return figure


def _taps(box: Sequence[float], kernel_size: int) -> np.ndarray:
    """(K, 2) x, y in cells, row-major."""
    y, x = sampling_points(torch.tensor(box, dtype=torch.float64), kernel_size, STRIDE)
    return torch.cartesian_prod(y, x).flip(1).numpy()


def _center(box: Sequence[float]) -> np.ndarray:
    """(2,) x, y in cells."""
    x1, y1, x2, y2 = box
    return np.array([x1 + x2, y1 + y2]) / (2 * STRIDE)


def _draw_map(axes: Axes, cell: tuple[int, int], box: Sequence[float]) -> None:
    height, width = MAP
    x1, y1, x2, y2 = (side / STRIDE for side in box)
    axes.add_patch(Ellipse(tuple(_center(box)), x2 - x1, y2 - y1, color=OBJECT, zorder=0))
    axes.vlines(range(width + 1), 0, height, color=GRID, linewidth=0.8, zorder=1)
    axes.hlines(range(height + 1), 0, width, color=GRID, linewidth=0.8, zorder=1)
    axes.add_patch(Rectangle(cell, 1, 1, facecolor="none", edgecolor=INK, linewidth=2.2, zorder=5))
    axes.set_xlim(-0.05, width + 0.05)
    axes.set_ylim(height + 0.05, -0.05)
    axes.set_aspect("equal")
    axes.axis("off")


def _draw_box(axes: Axes, box: Sequence[float], kernel_size: int, colour: tuple[float, ...], label: str) -> None:
    """With its bins, and a label above."""
    x1, y1, x2, y2 = (side / STRIDE for side in box)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2.4, zorder=3))
    inner = np.arange(1, kernel_size) / kernel_size
    style = {"color": colour, "linewidth": 1.0, "linestyles": (0, (4, 3)), "zorder": 3}
    axes.vlines(x1 + inner * (x2 - x1), y1, y2, **style)
    axes.hlines(y1 + inner * (y2 - y1), x1, x2, **style)
    axes.text(x1, y1 - 0.18, label, color=colour, fontsize=12, weight="bold", va="bottom", zorder=6)


def _draw_taps(axes: Axes, taps: np.ndarray, colour: tuple[float, ...]) -> None:
    axes.scatter(*taps.T, s=64, color=colour, edgecolors="white", linewidths=1.2, zorder=7)


def _draw_moves(axes: Axes, start: np.ndarray, end: np.ndarray) -> None:
    """Arrows from the convolution's taps: the offsets of eq. 4."""
    axes.scatter(*start.T, s=20, color=BLUE, alpha=0.55, linewidths=0, zorder=4)
    for a, b in zip(start, end, strict=True):
        axes.add_patch(
            FancyArrowPatch(
                tuple(a),
                tuple(b),
                arrowstyle="->",
                mutation_scale=9,
                shrinkA=0,
                shrinkB=4,
                color=BLUE,
                alpha=0.5,
                zorder=4,
            )
        )


def _draw_touched_cells(axes: Axes, tap: np.ndarray) -> None:
    """The four cells whose centres surround a tap, as dark as their bilinear weights."""
    low = np.floor(tap - 0.5)
    for step_x in (0, 1):
        for step_y in (0, 1):
            corner = low + np.array((step_x, step_y))
            weight = float(np.prod(1 - np.abs(tap - 0.5 - corner)))
            axes.add_patch(Rectangle(tuple(corner), 1, 1, facecolor=ORANGE, alpha=0.15 + 0.75 * weight, zorder=0.5))


def _remark(
    axes: Axes, text: str, *, at: Sequence[float], about: Sequence[float], align: Literal["left", "center"] = "center"
) -> None:
    """Words, and a line to what they are about; both points in cells."""
    axes.annotate(
        text,
        xy=(about[0], about[1]),
        xytext=(at[0], at[1]),
        ha=align,
        va="center",
        fontsize=12,
        color=INK,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
        zorder=6,
    )


def _caption(axes: Axes, title: str, subtitle: str, formula: str) -> None:
    axes.set_title(f"{title}: {subtitle}", fontsize=14, weight="bold", color=INK)
    axes.text(0.5, -0.02, formula, transform=axes.transAxes, ha="center", va="top", fontsize=12.5, color=INK)
