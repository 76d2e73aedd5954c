import io
import math
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from aligncli.analysis.curves import plot_curves, plot_curves_of
from aligncli.analysis.figures import SERIES
from aligncli.errors import DataError


def steps(parts=("dpm_class", "dpm_box"), count=50):
    return [
        {"iteration": i, "lr": 0.01, "loss": 2 / i, **dict.fromkeys(parts, 1 / i), "grad_norm": 1.0}
        for i in range(1, count + 1)
    ]


def draw(records):
    return picture_of(plot_curves(records))


def picture_of(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200)  # pure colours inside of lines
    return Image.open(file)


def looks_of_lines(figure):
    """Colours and dashes of all lines that are in a series' colour."""
    file = io.StringIO()
    figure.savefig(file, format="svg")
    looks = re.findall(r"(stroke-dasharray: [^;]+; stroke-dashoffset: 0; )?stroke: (#\w{6})", file.getvalue())
    return {look for look in looks if look[1] in map(to_hex, SERIES)}


def colours(picture):
    return {tuple(colour) for colour in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()}


def test_curves_fit_a_phone():
    figure = plot_curves(steps())
    assert figure.get_figwidth() < 6  # inches: text keeps its size there
    assert picture_of(figure).format == "PNG"


def test_every_loss_part_has_a_line_of_its_own_colour():
    vermillion, green = (213, 94, 0), (0, 158, 115)
    assert {vermillion, green} <= colours(draw(steps(parts=("class", "box"))))
    assert green not in colours(draw(steps(parts=("only",))))


def test_evaluations_get_a_panel():
    evaluations = [{"iteration": i, "evaluation": {"AP": i / 2, "AP50": i, "AP75": None}} for i in (25, 50)]
    assert draw(steps() + evaluations).height > draw(steps()).height


def test_one_record_is_enough():
    assert draw(steps(count=1)).height == draw(steps()).height


@pytest.mark.parametrize("records", [[], [{"iteration": 5, "evaluation": {"AP": 1.0}}]])
def test_a_run_without_steps_is_a_data_error(records):
    with pytest.raises(DataError, match="no training steps to plot"):
        plot_curves(records)


def test_runs_side_by_side_have_a_line_each_and_show_their_names():
    vermillion, green = (213, 94, 0), (0, 158, 115)
    evaluated = [*steps(), {"iteration": 50, "evaluation": {"AP": 40.0}}]
    figure = plot_curves_of([("first", evaluated), ("_second $x$", steps())])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["first", "\u200b_second \\$x\\$"]
    _, precision, _ = figure.axes
    assert len(precision.lines) == 1
    shown = colours(picture_of(figure))
    assert vermillion in shown
    assert green not in shown
    with pytest.raises(DataError, match="no training steps to plot"):
        plot_curves_of([("first", steps()), ("empty", [])])


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_a_broken_loss_is_a_gap_in_the_smoothed_line_and_nothing_else(broken):
    records = steps(parts=("only",), count=400)
    records[99]["loss"] = broken
    _, smoothed = plot_curves(records).axes[0].lines
    assert np.flatnonzero(np.isnan(smoothed.get_ydata())).tolist() == [99]
    _, whole = plot_curves(steps(parts=("only",), count=400)).axes[0].lines
    near = slice(99 - 400 // 80, 100 + 400 // 80)
    for part in (slice(0, near.start), slice(near.stop, None)):
        assert smoothed.get_ydata()[part] == pytest.approx(whole.get_ydata()[part])


def test_no_two_series_look_alike_when_there_are_more_than_colours():
    names = [f"part_{number}" for number in range(8)]
    with matplotlib.rc_context({"lines.scale_dashes": False}):  # equal dashes for all widths
        assert len(looks_of_lines(plot_curves(steps(parts=names)))) == 1 + len(names)
        assert len(looks_of_lines(plot_curves_of([(name, steps()) for name in "abcdefghijklmn"]))) == 14
