"""Charts show the numbers that they are given, under the names that they are given."""

import math

import numpy as np
import pytest

from aligncli.analysis.charts import (
    MOST_CLASS_CURVES,
    plot_class_curves,
    plot_class_precision,
    plot_errors,
    plot_precision_recall,
)
from aligncli.engine.detections import ERRORS, Errors
from aligncli.engine.precision_recall import IOUS, RECALLS, PrecisionRecall


def curves_of(num_classes, *, without_objects=()):
    """Class k has precision 1 / (k + 1) at every recall."""
    precision = np.ones((len(IOUS), len(RECALLS), num_classes)) / np.arange(1, num_classes + 1)
    precision[..., list(without_objects)] = np.nan
    return PrecisionRecall(tuple(f"class {k}" for k in range(num_classes)), precision)


def errors_of(gain):
    gains = dict.fromkeys(ERRORS.values(), gain)
    return [Errors(part, iou, 10, 50.0, gains) for part in ("all", "small") for iou in (0.5, 0.75)]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_bars_stand_in_the_order_of_ap_and_a_class_without_objects_says_so():
    (axes,) = plot_class_precision([("run", {"cat": 10.0, "dog": 30.0, "cow": math.nan})]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog", "cat", "cow"]
    assert [bar.get_width() for bar in axes.patches] == [30.0, 10.0, 0.0]
    assert [text.get_text() for text in axes.texts] == ["30.0", "10.0", "no objects"]


def test_several_runs_are_dots_in_the_order_of_the_first():
    (axes,) = plot_class_precision([("a", {"cat": 10.0, "dog": 30.0}), ("b", {"cat": 20.0})]).axes
    first, second = axes.lines
    assert list(first.get_xdata()) == [30.0, 10.0]
    assert math.isnan(second.get_xdata()[0])
    assert texts(axes.get_legend()) == ["a", "b"]


def test_precision_is_the_mean_over_classes_with_objects():
    (axes,) = plot_precision_recall([("run", curves_of(3, without_objects=[2]))]).axes
    assert texts(axes.get_legend()) == ["IoU 0.5", "IoU 0.75", "IoU 0.9"]
    assert axes.lines[0].get_ydata() == pytest.approx(0.75)
    (axes,) = plot_precision_recall([("a", curves_of(2)), ("b", curves_of(2))]).axes
    assert texts(axes.get_legend()) == ["a, IoU 0.5", "a, IoU 0.75", "b, IoU 0.5", "b, IoU 0.75"]


def test_of_many_classes_the_best_and_the_worst_have_names():
    (axes,) = plot_class_curves(curves_of(30, without_objects=[29])).axes
    assert len(axes.lines) == 29
    named = texts(axes.get_legend())
    assert len(named) == MOST_CLASS_CURVES
    assert named[0] == "class 0"
    assert named[-1] == "class 28"


def test_a_panel_an_iou_shows_what_repairs_would_bring():
    first, second = plot_errors([("a", errors_of(3.0)), ("b", errors_of(5.0))]).axes
    assert (first.get_title(), second.get_title()) == ("IoU 0.5", "IoU 0.75")
    assert [bar.get_width() for bar in first.patches] == [3.0] * 6 + [5.0] * 6
    assert [label.get_text() for label in first.get_yticklabels()] == list(ERRORS.values())
