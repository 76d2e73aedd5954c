"""Training curves: loss and its parts, learning rate, and AP where a run was evaluated; of one run or of several.

Input is a run folder's metrics.jsonl as a list of records, which are of two sorts:
{"iteration", "lr", "loss", one key a loss part, "grad_norm"} and {"iteration", "evaluation": {metric: percent}}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aligncli.analysis.figures import clean_axes, figure_style, legend_outside, line_style, plain_label, point_style
from aligncli.errors import DataError

NOT_LOSSES = frozenset({"iteration", "lr", "loss", "grad_norm"})
HEIGHTS = {"loss": 2.6, "AP": 1.8, "learning rate": 1.2}  # inches
WIDTH = 5.6  # inches: text stays readable on a phone

Records = Sequence[Mapping[str, Any]]


def plot_curves(records: Records) -> Figure:
    """One run's curves over iterations. Raises DataError if no record holds a loss.

    Faint lines are the logged values, strong ones their running mean over a fortieth of the run.
    """
    steps, evaluations = _steps(records), _evaluations(records)
    with figure_style():
        figure, axes = _panels(with_evaluations=bool(evaluations))
        parts = list(dict.fromkeys(key for step in steps for key in step if key not in NOT_LOSSES))
        for number, name in enumerate(["loss", *parts] if len(parts) > 1 else ["loss"]):
            label = "total" if name == "loss" else name.replace("_", " ")
            _plot_loss(axes["loss"], steps, name, label, number)
        axes["learning rate"].plot(*_series(steps, "lr"), linewidth=1.5, **line_style(0))
        for number, name in enumerate(("AP", "AP50", "AP75") if evaluations else ()):
            _plot_evaluations(axes["AP"], evaluations, name, name, number)
        _finish(axes)
        axes["loss"].legend(frameon=False, ncols=2, fontsize=9, loc="upper right")
        if evaluations and axes["AP"].get_legend_handles_labels()[0]:
            axes["AP"].legend(frameon=False, ncols=2, fontsize=9, loc="lower right")
    return figure


def plot_curves_of(runs: Sequence[tuple[str, Records]]) -> Figure:
    """Total loss, AP and learning rate of several runs, by name. Raises DataError where one has no loss."""
    with figure_style():
        figure, axes = _panels(with_evaluations=any(_evaluations(records) for _, records in runs))
        handles = []  # one legend for all panels: lines and points
        for number, (name, records) in enumerate(runs):
            steps, evaluations = _steps(records), _evaluations(records)
            _plot_loss(axes["loss"], steps, "loss", name, number)
            axes["learning rate"].plot(*_series(steps, "lr"), linewidth=1.5, **line_style(number))
            if evaluations:
                _plot_evaluations(axes["AP"], evaluations, "AP", name, number)
            point = point_style(number) if evaluations else {}
            handles.append(Line2D([], [], markersize=4, linewidth=2, **point | line_style(number)))
        _finish(axes)
        legend_outside(figure, handles, [plain_label(name) for name, _ in runs])
    return figure


def _steps(records: Records) -> Records:
    steps = [record for record in records if "loss" in record]
    if not steps:
        raise DataError("no training steps to plot: metrics.jsonl has no record with a loss")
    return steps


def _evaluations(records: Records) -> Records:
    return [record for record in records if "evaluation" in record]


def _panels(*, with_evaluations: bool) -> tuple[Figure, dict[str, Axes]]:
    names = [name for name in HEIGHTS if name != "AP" or with_evaluations]
    heights = [HEIGHTS[name] for name in names]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(names), sharex=True, height_ratios=heights, squeeze=False)
    return figure, dict(zip(names, grid[:, 0]))


def _finish(axes: Mapping[str, Axes]) -> None:
    for name, panel in axes.items():
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
        clean_axes(panel)
    if "AP" in axes:  # room for points: margins are shares of what may be a small range
        axes["AP"].set_ylim(top=1.06 * axes["AP"].get_ylim()[1])
    axes["learning rate"].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes["learning rate"].set_xlabel("iteration")


def _plot_loss(axes: Axes, steps: Records, name: str, label: str, number: int) -> None:
    iterations, values = _series(steps, name)
    style = line_style(number)
    axes.plot(iterations, values, color=style["color"], linewidth=0.7, alpha=0.3)
    width = 2.2 if name == "loss" else 1.4
    axes.plot(iterations, _running_mean(values), linewidth=width, label=plain_label(label), **style)


def _plot_evaluations(axes: Axes, evaluations: Records, metric: str, label: str, number: int) -> None:
    points = [(e["iteration"], e["evaluation"].get(metric)) for e in evaluations]
    drawn = [(iteration, value) for iteration, value in points if value is not None]
    if drawn:
        style = point_style(number) | line_style(number)
        axes.plot(*zip(*drawn), markersize=4, linewidth=1.4, label=plain_label(label), **style)


def _series(steps: Records, name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(step["iteration"], step[name]) for step in steps if name in step]
    iterations, values = np.array(points, dtype=np.float64).T
    return iterations, values


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred, over the finite values in what there is of the window; same length, NaN where a value is not finite."""
    reach = len(values) // 80
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(finite, means, np.nan)
