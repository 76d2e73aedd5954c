"""Figures of measured alignment: Figure 4's distributions, their splits, and what refining does to them.

Each function takes the measurements of all detectors to be compared and returns a matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aligncli.analysis.alignment.distributions import BIN_EDGES, NUM_BINS, Distribution
from aligncli.analysis.alignment.measure import FOREGROUND_IOU, SETS, Measurement
from aligncli.analysis.figures import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Colour,
    clean_axes,
    figure_style,
    legend_outside,
    say,
    wrapped_label,
)

DRAWN_BINS = 25  # of two counted ones each: enough to see a shape, few enough for some hundred locations
COLOURS: tuple[Colour, ...] = (BLUE, PURPLE, GREEN, VERMILLION, ORANGE, SKY, (0.35, 0.35, 0.35))
OWN_COLOURS = {"conv": BLUE, "deformable conv": PURPLE, "anchor-guided conv": GREEN, "RoIConv": VERMILLION}
DASHES = ("-", (0, (5, 1.5)), (0, (3, 1.2, 1, 1.2)), (0, (1.2, 1.2)))
SINGULAR = {"refined anchors": "refined anchor", "anchors": "anchor", "decoded boxes": "decoded box"}
LABEL_WIDTH = 45  # characters, then a new line: three panels stand side by side
SPIKE = 0.5  # share in one bin from which on the other curves set the height of the panel


def plot_distributions(measurements: Sequence[Measurement]) -> Figure:
    """Figure 4: how the IoU is distributed, one panel a set of locations, one curve a detector."""
    names, colours = legend_names(measurements), pick_colours(measurements)
    with figure_style():
        figure = Figure(figsize=(12.6, 3.3 + 0.24 * sum(1 + len(name) // 20 for name in names)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr]
        panels = figure.subplots(1, len(SETS))
        for axes, subset in zip(panels, SETS, strict=True):
            axes.set_title(describe_set(subset, measurements[0].score), fontsize=12, weight="bold", color=INK)
            drawn = [measurement.distribution(subset) for measurement in measurements]
            _draw_curves(axes, drawn, names, colours)
            axes.set_xlabel(f"IoU of implicit RoI and {_box_name(measurements)}")
        panels[0].set_ylabel("share of locations")
    return figure


def plot_splits(measurements: Sequence[Measurement]) -> Figure:
    """Mean and quartiles of the IoU by level, scale and aspect ratio; of confident locations if there are any."""
    names, colours = legend_names(measurements), pick_colours(measurements)
    confident = any(measurement.distribution("confident").num_locations for measurement in measurements)
    subset = "confident" if confident else "all"
    splits: dict[str, list[str]] = {}
    for measurement in measurements:
        for split, parts in measurement.splits().items():
            known = splits.setdefault(split, [])
            known.extend(part for part in parts if part not in known)
    box = _box_name(measurements)
    titles = {"level": "by level", "scale": f"by scale of the {box}", "aspect": f"by aspect ratio of the {box}"}
    axis_labels = {"level": "", "scale": "area in the original image", "aspect": "long side / short side"}
    with figure_style():
        figure = Figure(figsize=(12.6, 3.8), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr]
        panels = figure.subplots(1, len(splits), sharey=True, width_ratios=[len(parts) for parts in splits.values()])
        for axes, (split, parts) in zip(panels, splits.items(), strict=True):
            axes.set_title(titles[split], fontsize=12, weight="bold", color=INK)
            for number, (measurement, colour) in enumerate(zip(measurements, colours, strict=True)):
                shift = (number - (len(measurements) - 1) / 2) * 0.7 / len(measurements)
                known = measurement.splits()[split]
                for place, part in enumerate(parts):
                    if part in known:
                        _draw_spread(axes, place + shift, measurement.distribution(subset, **{split: part}), colour)
            axes.set_xticks(range(len(parts)), parts)
            axes.set_xlabel(axis_labels[split])
            axes.set_xlim(-0.5, len(parts) - 0.5)
            axes.set_ylim(0, 1.03)
            clean_axes(axes)
            axes.grid(visible=False, axis="x")
        panels[0].set_ylabel("IoU: mean and quartiles")
        handles = [Line2D([], [], color=colour, marker="o", linewidth=4, markersize=7) for colour in colours]
        labels = [wrapped_label(name, LABEL_WIDTH) for name in names]
        title = describe_set(subset, measurements[0].score)
        legend_outside(figure, handles, labels, fontsize=10.5, title=title).get_title().set_color(MUTED)
    return figure


def plot_refinement(measurements: Sequence[Measurement]) -> Figure:
    """Mean IoU for each kind of box that a detector was measured with: for example before and after refining."""
    names, colours = legend_names(measurements), pick_colours(measurements)
    lines = [
        (number, comparison, place == 0)
        for number, measurement in enumerate(measurements)
        for place, comparison in enumerate(measurement.groups)
    ]
    labels = [wrapped_label(f"{names[number]}: {comparison}", LABEL_WIDTH) for number, comparison, _ in lines]
    row = max(0.42, 0.19 * max(1 + label.count("\n") for label in labels))  # inches
    with figure_style():
        figure = Figure(figsize=(12.6, 1.5 + row * len(lines)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr]
        panels = figure.subplots(1, len(SETS), sharey=True)
        for axes, subset in zip(panels, SETS, strict=True):
            axes.set_title(describe_set(subset, measurements[0].score), fontsize=11, weight="bold", color=INK)
            for place, (number, comparison, first) in enumerate(lines):
                distribution = measurements[number].distribution(subset, comparison=comparison)
                _draw_spread(axes, place, distribution, colours[number], horizontal=True, filled=first)
            axes.set_xlim(0, 1.03)
            axes.set_xlabel("IoU with the implicit RoI")
            clean_axes(axes)
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(range(len(lines)), labels)
        panels[0].set_ylim(len(lines) - 0.5, -0.5)
    return figure


def legend_names(measurements: Sequence[Measurement]) -> list[str]:
    """Titles, with the detector's name where two have the same title."""
    titles = [measurement.title for measurement in measurements]
    return [
        f"{measurement.title}, {measurement.name}" if titles.count(measurement.title) > 1 else measurement.title
        for measurement in measurements
    ]


def pick_colours(measurements: Sequence[Measurement]) -> list[Colour]:
    """The variants of Figure 3 keep their colours from figure to figure; others take what is left, then repeat."""
    picked: list[Colour] = []
    for measurement in measurements:
        own = OWN_COLOURS.get(measurement.title.rpartition(" ")[0])
        free = [colour for colour in COLOURS if colour not in picked]
        picked.append(own if own and own in free else free[0] if free else COLOURS[len(picked) % len(COLOURS)])
    return picked


def describe_set(subset: str, score: float) -> str:
    """A set of locations in words."""
    return {
        "all": "all locations",
        "confident": f"confident locations (score > {score:g})",
        "foreground": f"locations on objects (IoU ≥ {FOREGROUND_IOU:g})",
    }[subset]


def _box_name(measurements: Sequence[Measurement]) -> str:
    """What implicit RoIs are compared with, in the singular; a box where that differs between detectors."""
    kinds = {measurement.comparison for measurement in measurements}
    return SINGULAR.get(kinds.pop(), "box") if len(kinds) == 1 else "box"


def _draw_curves(
    axes: Axes, distributions: Sequence[Distribution], names: Sequence[str], colours: Sequence[Colour]
) -> None:
    """Outlined histograms. One that lies in a single bin would dwarf the others: it may leave the panel at the top."""
    step = NUM_BINS // DRAWN_BINS
    edges = BIN_EDGES[::step]
    densities = [each.density().reshape(-1, step).sum(axis=1) for each in distributions]
    ordinary = [density.max() for density in densities if density.max() < SPIKE]
    top = 1.22 * max(ordinary, default=SPIKE / 0.6)
    for number, (density, colour) in enumerate(zip(densities, colours, strict=True)):
        if np.isnan(density).any():
            continue
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.10)
        axes.stairs(density, edges, color=colour, linewidth=1.8, linestyle=DASHES[number % len(DASHES)])
        if density.max() > top:
            place = (edges[density.argmax()] + edges[density.argmax() + 1]) / 2
            side = -1 if place > 0.2 else 1  # left of the spike, but not over the axis
            axes.annotate(
                f"{density.max():.0%}",
                (place, top),
                xytext=(7 * side, -13),
                textcoords="offset points",
                ha="right" if side < 0 else "left",
                color=colour,
                weight="bold",
            )
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    clean_axes(axes)
    if not any(each.num_locations for each in distributions):
        say(axes, "no such location")
    handles = [
        Line2D([], [], color=colour, linewidth=2, linestyle=DASHES[number % len(DASHES)])
        for number, colour in enumerate(colours)
    ]
    axes.legend(
        handles,
        [wrapped_label(f"{name}  {_mean(each)}", LABEL_WIDTH) for name, each in zip(names, distributions, strict=True)],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        frameon=False,
        handlelength=2.4,
        borderaxespad=0,
    )


def _mean(distribution: Distribution) -> str:
    if not distribution.num_locations:
        return "–"
    return f"mean {distribution.mean:.2f} of {distribution.num_locations:,}"


def _draw_spread(
    axes: Axes,
    place: float,
    distribution: Distribution,
    colour: Colour,
    *,
    horizontal: bool = False,
    filled: bool = True,
) -> None:
    """A dot at the mean and a line between the quartiles."""
    if not distribution.num_locations:
        return
    quartiles = [distribution.quantile(0.25), distribution.quantile(0.75)]
    line, dot = ([place] * 2, quartiles), ([place], [distribution.mean])
    if horizontal:
        line, dot = line[::-1], dot[::-1]
    axes.plot(*line, color=colour, linewidth=4, alpha=0.35, solid_capstyle="round", zorder=2, clip_on=False)
    face = colour if filled else "white"
    axes.plot(*dot, "o", color=colour, markerfacecolor=face, markersize=7, markeredgewidth=1.6, zorder=3, clip_on=False)
