"""Training curves of one run: loss and its parts, learning rate, and AP where it was evaluated.

Input is the run folder's metrics.jsonl as a list of records, which are of two sorts:
{"iteration", "lr", "loss", one key a loss part, "grad_norm"} and {"iteration", "evaluation": {metric: percent}}.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aligncli.analysis.pictures import PALETTE
from aligncli.errors import DataError

NOT_LOSSES = frozenset({"iteration", "lr", "loss", "grad_norm"})
HEIGHTS = {"loss": 3.2, "AP": 2.0, "learning rate": 1.4}  # inches
COLOURS = [tuple(part / 255 for part in PALETTE[index]) for index in (6, 4, 2, 0, 5, 1)]


def plot_curves(records: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the run's curves over iterations. Raises DataError if no record holds a loss.

    Faint lines are the logged values, strong ones their running mean over a fortieth of the run.
    """
    steps = [record for record in records if "loss" in record]
    evaluations = [record for record in records if "evaluation" in record]
    if not steps:
        raise DataError("no training steps to plot: metrics.jsonl has no record with a loss")
    panels = [name for name in HEIGHTS if name != "AP" or evaluations]
    heights = [HEIGHTS[name] for name in panels]
    figure = Figure(figsize=(8, sum(heights)), dpi=120, layout="constrained")
    grid = figure.subplots(len(panels), sharex=True, height_ratios=heights, squeeze=False)
    axes = dict(zip(panels, grid[:, 0]))
    _plot_losses(axes["loss"], steps)
    axes["learning rate"].plot(*_series(steps, "lr"), color=COLOURS[0], linewidth=1.5)
    if evaluations:
        _plot_evaluations(axes["AP"], evaluations)
    for name, panel in axes.items():
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    axes["learning rate"].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes["learning rate"].set_xlabel("iteration")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _plot_losses(axes: Axes, steps: Sequence[Mapping[str, float]]) -> None:
    parts = list(dict.fromkeys(key for step in steps for key in step if key not in NOT_LOSSES))
    names = ["loss", *parts] if len(parts) > 1 else ["loss"]
    for number, name in enumerate(names):
        iterations, values = _series(steps, name)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(iterations, values, color=colour, linewidth=0.7, alpha=0.3)
        label, width = ("total", 2.2) if name == "loss" else (name.replace("_", " "), 1.4)
        axes.plot(iterations, _running_mean(values), color=colour, linewidth=width, label=label)
    axes.legend(frameon=False, ncols=2)


def _plot_evaluations(axes: Axes, evaluations: Sequence[Mapping[str, Any]]) -> None:
    for name, colour in zip(("AP", "AP50", "AP75"), COLOURS):
        points = [(e["iteration"], e["evaluation"].get(name)) for e in evaluations]
        drawn = [(iteration, value) for iteration, value in points if value is not None]
        if drawn:
            axes.plot(*zip(*drawn), "o-", color=colour, markersize=4, linewidth=1.4, label=name)
    axes.legend(frameon=False, ncols=3)


def _series(steps: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(step["iteration"], step[name]) for step in steps if name in step]
    iterations, values = np.array(points, dtype=np.float64).T
    return iterations, values


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred, over what there is of the window at both ends; same length."""
    reach = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)
