import io

import numpy as np
import pytest
from PIL import Image

from aligncli.analysis.curves import plot_curves, plot_curves_of
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
    loss, precision, _ = figure.axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["first", "\u200b_second \\$x\\$"]
    assert [text.get_text() for text in precision.get_legend().get_texts()] == ["first"]
    shown = colours(picture_of(figure))
    assert vermillion in shown
    assert green not in shown
    with pytest.raises(DataError, match="no training steps to plot"):
        plot_curves_of([("first", steps()), ("empty", [])])
