"""Charts show the numbers that they are given, under the names that they are given."""

import math
import warnings

import numpy as np
import pytest

from aligncli.analysis.charts import (
    MOST_CLASS_CURVES,
    plot_class_curves,
    plot_class_precision,
    plot_errors,
    plot_precision_recall,
)
from aligncli.analysis.figures import SERIES
from aligncli.engine.detections import ERRORS, Errors
from aligncli.engine.precision_recall import IOUS, RECALLS, PrecisionRecall
from tests.analysis.test_curves import looks_of_lines


def curves_of(num_classes, *, without_objects=()):
    """Class k has precision 1 / (k + 1) at every recall."""
    precision = np.ones((len(IOUS), len(RECALLS), num_classes)) / np.arange(1, num_classes + 1)
    precision[..., list(without_objects)] = np.nan
    return PrecisionRecall(tuple(f"class {k}" for k in range(num_classes)), precision)


def errors_of(gain):
    gains = dict.fromkeys(ERRORS.values(), gain)
    return [Errors(part, iou, 10, 50.0, gains) for part in ("all", "small") for iou in (0.5, 0.75)]


def names_in_legend(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def drawn(figure):
    """The figure with everything in its place; a layout that does not fit is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)
        figure.draw_without_rendering()
    return figure


def test_bars_stand_in_the_order_of_ap_and_a_class_without_objects_says_so():
    (axes,) = plot_class_precision([("run", {"cat": 10.0, "dog": 30.0, "cow": math.nan})]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog", "cat", "cow"]
    assert [bar.get_width() for bar in axes.patches] == [30.0, 10.0, 0.0]
    assert [text.get_text() for text in axes.texts] == ["30.0", "10.0", "no objects"]


def test_several_runs_are_dots_in_the_order_of_the_first():
    figure = plot_class_precision([("a", {"cat": 10.0, "dog": 30.0}), ("b", {"cat": 20.0})])
    (axes,) = figure.axes
    first, second = axes.lines
    assert list(first.get_xdata()) == [30.0, 10.0]
    assert math.isnan(second.get_xdata()[0])
    assert names_in_legend(figure) == ["a", "b"]


@pytest.mark.parametrize("num_classes", [1, 2, 3, 6, 20])
@pytest.mark.parametrize("num_runs", [1, 2, 7, 13])
def test_rows_keep_their_height_however_many_runs_the_legend_names(num_classes, num_runs):
    values = {f"class {number}": 50.0 for number in range(num_classes)}
    figure = drawn(plot_class_precision([(f"run {number} of a long name", values) for number in range(num_runs)]))
    (axes,) = figure.axes
    assert axes.get_window_extent().height / figure.dpi / num_classes > 0.2  # inches: text is 0.15 high
    for legend in figure.legends:
        below = legend.get_window_extent()
        assert below.y0 >= 0
        assert below.y1 <= axes.xaxis.get_tightbbox().y0


def test_precision_is_the_mean_over_classes_with_objects():
    figure = plot_precision_recall([("run", curves_of(3, without_objects=[2]))])
    assert names_in_legend(figure) == ["IoU 0.5", "IoU 0.75", "IoU 0.9"]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx(0.75)
    figure = plot_precision_recall([("a", curves_of(2)), ("b", curves_of(2))])
    assert names_in_legend(figure) == ["a, IoU 0.5", "a, IoU 0.75", "b, IoU 0.5", "b, IoU 0.75"]


def test_of_many_classes_the_best_and_the_worst_have_names():
    figure = plot_class_curves(curves_of(30, without_objects=[29]))
    assert len(figure.axes[0].lines) == 29
    named = names_in_legend(figure)
    assert len(named) == MOST_CLASS_CURVES
    assert named[0] == "class 0"
    assert named[-1] == "class 28"


def test_a_panel_an_iou_shows_what_repairs_would_bring():
    first, second = plot_errors([("a", errors_of(3.0)), ("b", errors_of(5.0))]).axes
    assert (first.get_title(), second.get_title()) == ("IoU 0.5", "IoU 0.75")
    assert [bar.get_width() for bar in first.patches] == [3.0] * 6 + [5.0] * 6
    assert [label.get_text() for label in first.get_yticklabels()] == list(ERRORS.values())


def test_legends_of_curves_lie_below_the_axes():
    runs = [(f"aligndet_small-{number}", curves_of(12)) for number in range(9)]
    for figure in (plot_precision_recall(runs[:1]), plot_precision_recall(runs), plot_class_curves(runs[0][1])):
        (axes,) = drawn(figure).axes
        (legend,) = figure.legends
        assert 0 <= legend.get_window_extent().y0 < legend.get_window_extent().y1 <= axes.xaxis.get_tightbbox().y0
        assert axes.get_window_extent().height / figure.dpi > 3.2  # inches, as without a legend


def test_no_two_of_many_runs_look_alike():
    names = [f"run {number}" for number in range(3 * len(SERIES))]
    assert len(looks_of_lines(plot_precision_recall([(name, curves_of(1)) for name in names]))) == 2 * len(names)
    (dots,) = plot_class_precision([(name, {"cat": 1.0}) for name in names]).axes
    assert len({(line.get_color(), line.get_marker()) for line in dots.lines}) == len(names)
    bars, _ = plot_errors([(name, errors_of(1.0)) for name in names]).axes
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars.patches}) == len(names)


def test_where_no_class_has_objects_the_picture_says_so():
    nothing, unknown = curves_of(2, without_objects=[0, 1]), {"cat": math.nan}
    for figure in (
        plot_class_precision([("run", {})]),
        plot_class_precision([("a", unknown), ("b", unknown)]),
        plot_precision_recall([("run", nothing)]),
        plot_class_curves(nothing),
    ):
        assert "no class has objects" in [text.get_text() for text in drawn(figure).axes[0].texts]


def test_names_with_dollars_and_underscores_are_no_formulas_and_stay_in_legends():
    runs = [("a$_^$", curves_of(2)), ("_b", curves_of(2))]
    values = {"$_^$": 10.0, "_": 20.0}
    precision = drawn(plot_class_precision([(name, values) for name, _ in runs]))
    errors = drawn(plot_errors([(name, errors_of(1.0)) for name, _ in runs]))
    assert names_in_legend(precision) == names_in_legend(errors) == [r"a\$_^\$", "\u200b_b"]
    assert len(names_in_legend(drawn(plot_precision_recall(runs)))) == 4
