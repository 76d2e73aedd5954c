"""Charts of evaluations, of one run or several: AP by class, precision over recall, what errors cost.

Runs come as (name, what was found) pairs; each keeps its colour from chart to chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aligncli.analysis.figures import (
    INK,
    MUTED,
    bar_style,
    clean_axes,
    figure_style,
    legend_outside,
    line_style,
    plain_label,
    point_style,
    say,
)
from aligncli.engine.detections import Errors
from aligncli.engine.precision_recall import RECALLS, PrecisionRecall

WIDTH = 5.6  # inches: text stays readable on a phone
CURVE_IOUS = (0.5, 0.75, 0.9)
MOST_CLASS_CURVES = 12  # more names than that cannot be told apart
NO_CLASSES = "no class has objects"


def plot_class_precision(runs: Sequence[tuple[str, Mapping[str, float]]]) -> Figure:
    """AP by class, percent, the first run's best on top: bars for one run, dots for several."""
    (_, first), *others = runs
    names = sorted(first, key=lambda name: (np.isnan(first[name]), -first[name]))
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.8 + 0.24 * max(len(names), 1)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))
        if others:
            for number, (run, values) in enumerate(runs):
                points = [values.get(name, np.nan) for name in names]
                style = {"linestyle": "", "alpha": 0.85} | point_style(number)
                axes.plot(points, places, label=plain_label(run), **style)
            legend_outside(figure, *axes.get_legend_handles_labels())
        else:
            values = np.nan_to_num([first[name] for name in names])
            axes.barh(places, values, height=0.7, **bar_style(0))
            for place, name in enumerate(names):
                text = "no objects" if np.isnan(first[name]) else f"{first[name]:.1f}"
                axes.text(values[place] + 1, place, text, va="center", fontsize=9, color=INK)
        if all(np.isnan(value) for _, values in runs for value in values.values()):
            say(axes, NO_CLASSES)
        axes.set_yticks(places, [plain_label(name, 24) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 106)
        axes.set_xlabel("AP, percent")
        clean_axes(axes)
        axes.grid(visible=False, axis="y")
    return figure


def plot_precision_recall(runs: Sequence[tuple[str, PrecisionRecall]]) -> Figure:
    """Precision over recall, the mean over classes: of one run at three IoUs, of several at .5 and .75."""
    ious = CURVE_IOUS if len(runs) == 1 else CURVE_IOUS[:2]
    with figure_style():
        figure, axes = _recall_axes()
        for number, (run, found) in enumerate(runs):
            for place, iou in enumerate(ious):
                label = f"IoU {iou:g}" if len(runs) == 1 else f"{plain_label(run)}, IoU {iou:g}"
                style = line_style(place) if len(runs) == 1 else line_style(number, kind=place, num_kinds=len(ious))
                axes.plot(RECALLS, found.mean_curve(iou), linewidth=1.8, label=label, **style)
        if not any(found.class_curves(ious[0]) for _, found in runs):
            say(axes, NO_CLASSES)
        legend_outside(figure, *axes.get_legend_handles_labels(), columns=max(len(runs), len(ious)))
    return figure


def plot_class_curves(found: PrecisionRecall, *, iou: float = 0.5) -> Figure:
    """Precision over recall of each class; of many classes the best and the worst half dozen, the others faint."""
    curves = found.class_curves(iou)
    ranking = sorted(curves, key=lambda name: -curves[name].mean())
    named = ranking
    if len(ranking) > MOST_CLASS_CURVES:
        named = ranking[: MOST_CLASS_CURVES // 2] + ranking[-MOST_CLASS_CURVES // 2 :]
    with figure_style():
        figure, axes = _recall_axes()
        for name in ranking:
            if name not in named:
                axes.plot(RECALLS, curves[name], color=MUTED, linewidth=0.6, alpha=0.4)
        for number, name in enumerate(named):
            axes.plot(RECALLS, curves[name], linewidth=1.5, label=plain_label(name, 18), **line_style(number))
        if named:
            legend_outside(figure, *axes.get_legend_handles_labels())
        else:
            say(axes, NO_CLASSES)
    return figure


def plot_errors(runs: Sequence[tuple[str, Sequence[Errors]]]) -> Figure:
    """What repairing each kind of error alone would add to AP, over all objects: a panel an IoU, a bar a run."""
    ious = list(dict.fromkeys(item.iou for item in runs[0][1]))
    kinds = list(runs[0][1][0].gains)
    height = 0.8 / len(runs)
    with figure_style():
        size = (WIDTH, 1.2 + len(kinds) * (0.26 + 0.12 * len(runs)))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(ious), sharex=True, sharey=True, squeeze=False)[0]
        for axes, iou in zip(panels, ious):
            for number, (run, found) in enumerate(runs):
                overall = next(item for item in found if item.part == "all" and item.iou == iou)
                shift = (number - (len(runs) - 1) / 2) * height
                places = np.arange(len(kinds)) + shift
                values = list(overall.gains.values())
                axes.barh(places, values, height=height * 0.9, label=plain_label(run), **bar_style(number))
                for place, value in zip(places, values):
                    axes.text(max(value, 0.0), place, f" {value:.1f}", va="center", fontsize=8.5, color=INK)
            axes.set_title(f"IoU {iou:g}", fontsize=10.5, color=INK)
            axes.set_yticks(range(len(kinds)), kinds)
            axes.set_xlabel("AP to be gained")
            clean_axes(axes)
            axes.grid(visible=False, axis="y")
        panels[0].set_ylim(len(kinds) - 0.4, -0.6)
        panels[0].margins(x=0.2)
        if len(runs) > 1:
            legend_outside(figure, *panels[0].get_legend_handles_labels())
    return figure


def _recall_axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    clean_axes(axes)
    return figure, axes
