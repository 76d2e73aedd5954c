"""A training in a line and in rows."""

from __future__ import annotations

import math
import sys

from hypothesis import given
from hypothesis import strategies as st

from aligncli.cli.training_view import BLOCKS, TrainingView, sparkline


def test_a_line_has_everything_that_is_known() -> None:
    view = TrainingView(iterations=900)
    assert view.line() == ""
    assert view.rows() == {}
    view.add({"iteration": 20, "lr": 0.002, "loss": 3.0, "adm_box": 1.0, "adm_class": 2.0, "grad_norm": 9.0})
    view.add({"iteration": 21, "lr": 0.00195, "images_per_second": 80.04, "eta_seconds": 65.0, "memory": 2.5e9})
    view.add({"iteration": 21, "evaluation": {"AP": 12.34}})
    view.add({"iteration": 22, "lr": 0.0019, "evaluation": {"AP": None}})
    assert view.line() == (
        "loss 3.000 (adm box 1.000, adm class 2.000)  lr 0.0019  memory 2.5 GB  AP 12.3 (after 21)"
        "  80.0 images/s  ETA 1:05"
    )
    assert view.speed() == "80.0 images/s  ETA 1:05"
    assert view.done == 22


def test_an_undefined_ap_is_none_yet() -> None:
    view = TrainingView()
    view.add({"iteration": 1, "evaluation": {"AP": math.nan}})
    assert view.evaluated is None


def test_a_falling_loss_is_a_falling_curve() -> None:
    assert sparkline([8.0, 4.0, 2.0, 1.0], width=4) == "█▆▃▁"  # equal steps: the scale is logarithmic
    assert sparkline([1.0] * 100, width=5) == "▁▁▁▁▁"
    assert sparkline([1.0]) == ""


def test_a_curve_of_the_largest_numbers() -> None:
    largest = sys.float_info.max
    assert sparkline([largest, largest], width=1) == "▁"
    assert sparkline([-largest, 0.0, largest], width=3) == "▁▅█"


@given(st.lists(st.floats(), max_size=200), st.integers(1, 60))
def test_a_curve_has_its_width_whatever_the_numbers(values: list[float], width: int) -> None:
    finite = [value for value in values if math.isfinite(value)]
    curve = sparkline(values, width=width)
    assert set(curve) <= set(BLOCKS)
    assert len(curve) == (min(width, len(finite)) if len(finite) > 1 else 0)
