"""Misalignment on real images: the box that a detector stood on, its implicit RoI, and where its taps read.

One row a detector, one column an object, the same object for all of them. Boxes are xyxy pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from aligncli.analysis.alignment.examples import Example
from aligncli.analysis.figures import BLUE, INK, MUTED, VERMILLION, YELLOW, Colour, figure_style, wrapped_label

MARGIN = 0.35  # of the longest side around what is drawn
LARGEST_VIEW = 2.2  # sides of the largest box; what reaches further is cut off
PANEL = 2.45  # inches
NAME_WIDTH = 24  # characters of a row's name, then a new line: as much as stands beside a panel
VEIL = 0.25  # how much white lies over the photograph


def draw_overlay(rows: Sequence[tuple[str, Sequence[Example]]], *, num_objects: int = 4) -> Figure | None:
    """Panels for up to `num_objects` objects. `rows`: a detector's name and its examples.

    Of each image the object is taken that most detectors find, then the one with the highest mean score.
    Returns None where nothing was found.
    """
    found = [{example.key: example for example in examples} for _, examples in rows]
    keys = _pick_objects(found, num_objects)
    if not keys:
        return None
    boxes_name = "box that it predicts from (refined anchor, anchor)"
    with figure_style():
        wide = len(keys) > 2  # enough for a legend in one line
        size = (max(PANEL * len(keys) + 0.6, 4.8), (PANEL + 0.32) * len(rows) + (0.55 if wide else 0.95))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(rows), len(keys), squeeze=False)
        for line, (name, _), examples in zip(panels, rows, found, strict=True):
            title, comma, rest = name.partition(", ")
            parts = [wrapped_label(part, NAME_WIDTH) for part in (title + comma.strip(), rest) if part]
            line[0].set_ylabel("\n".join(parts), fontsize=10.5, weight="bold", color=INK)
            for axes, key in zip(line, keys, strict=True):
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                view = _view([each[key] for each in found if key in each])
                shown = next(each[key] for each in found if key in each)
                _draw_image(axes, shown, view)
                if key in examples:
                    _draw_example(axes, examples[key])
                else:
                    axes.set_title("not found", fontsize=10, color=MUTED, style="italic")
        handles = [
            Line2D([], [], color=VERMILLION, linewidth=2.2),
            Line2D([], [], color=BLUE, linewidth=4.5),
            Line2D([], [], color=YELLOW, marker="o", linestyle="", markeredgecolor=INK, markersize=6),
        ]
        labels = [boxes_name, "implicit RoI: what its convolution reads", "taps"]
        figure.legend(handles, labels, loc="outside lower center", ncols=3 if wide else 1, frameon=False, fontsize=9.5)
    return figure


def _pick_objects(found: Sequence[dict[tuple[int, int], Example]], num_objects: int) -> list[tuple[int, int]]:
    """One object an image, in the order of the images."""
    ranks: dict[tuple[int, int], tuple[int, float]] = {}
    for key in {key for examples in found for key in examples}:
        scores = [examples[key].score for examples in found if key in examples]
        ranks[key] = len(scores), sum(scores) / len(scores)
    best: dict[int, tuple[int, int]] = {}
    for key in sorted(ranks):
        if key[0] not in best or ranks[key] > ranks[best[key[0]]]:
            best[key[0]] = key
    most = sorted(best.values(), key=lambda key: (-ranks[key][0], key))[:num_objects]
    return sorted(most)


def _view(examples: Sequence[Example]) -> tuple[float, float, float]:
    """Left, top and side of a square around what will be drawn for one object, but not much larger than its boxes."""
    boxes = [np.concatenate([each.box, each.truth]) for each in examples]
    everything = [np.concatenate([each.box, each.truth, each.implicit, each.taps.ravel()]) for each in examples]
    (low, high), (box_low, box_high) = (_bounds(parts) for parts in (everything, boxes))
    side = float((high - low).max()) * (1 + MARGIN)
    largest = LARGEST_VIEW * float((box_high - box_low).max())
    if side > largest:  # an implicit RoI that is far too large runs out of the picture
        side, low, high = largest, box_low, box_high
    left, top = (low + high - side) / 2
    return float(left), float(top), side


def _bounds(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x, y of flat arrays of points."""
    points = np.concatenate(parts).reshape(-1, 2)
    return points.min(axis=0), points.max(axis=0)


def _draw_image(axes: Axes, example: Example, view: tuple[float, float, float]) -> None:
    left, top, side = view
    height, width = example.pixels.shape[:2]
    pale = (example.pixels * (1 - VEIL) + 255 * VEIL).astype(np.uint8)
    axes.imshow(pale, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set_facecolor("#f1f3f5")
    axes.set_xlim(left, left + side)
    axes.set_ylim(top + side, top)


def _draw_example(axes: Axes, example: Example) -> None:
    _draw_box(axes, example.implicit, BLUE, 5.0, halo=True)
    _draw_box(axes, example.box, VERMILLION, 2.0, halo=False)  # where both agree, it lies inside the blue
    size = 26 if len(example.taps) <= 25 else 11
    axes.scatter(*example.taps.T, s=size, color=YELLOW, edgecolors=INK, linewidths=0.8, zorder=5)
    axes.set_title(f"IoU {example.iou:.2f}   score {example.score:.2f}", fontsize=10, color=INK)


def _draw_box(axes: Axes, box: np.ndarray, colour: Colour, width: float, *, halo: bool) -> None:
    """With a light outline, where asked for, so that it shows on any picture."""
    x1, y1, x2, y2 = (float(side) for side in box)
    outline = [patheffects.Stroke(linewidth=width + 1.6, foreground="white", alpha=0.9), patheffects.Normal()]
    axes.add_patch(
        Rectangle(
            (x1, y1),
            x2 - x1,
            y2 - y1,
            fill=False,
            edgecolor=colour,
            linewidth=width,
            path_effects=outline if halo else None,
            zorder=4,
        )
    )
