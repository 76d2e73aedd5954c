import io

import numpy as np
import pytest
from PIL import Image

from aligncli.analysis.curves import plot_curves
from aligncli.errors import DataError


def steps(parts=("dpm_class", "dpm_box"), count=50):
    return [
        {"iteration": i, "lr": 0.01, "loss": 2 / i, **dict.fromkeys(parts, 1 / i), "grad_norm": 1.0}
        for i in range(1, count + 1)
    ]


def draw(records):
    return Image.open(io.BytesIO(plot_curves(records)))


def colours(picture):
    return {tuple(colour) for colour in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()}


def test_curves_are_a_png_picture():
    picture = draw(steps())
    assert picture.format == "PNG"
    assert picture.width == 960


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
