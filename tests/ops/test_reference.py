"""The specification itself, on values small enough to work out by hand."""

import pytest
import torch

from aligncli.ops import reference


def read_point(x: float, y: float) -> float:
    """A 1 x 1 RoIConv with weight 1: the value at (x, y) in cells of the map 1 2 3 / 10 20 30."""
    features = torch.tensor([[[[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]]], dtype=torch.float64)
    boxes = torch.tensor([[[x - 0.5, y - 0.5, x + 0.5, y + 0.5]]], dtype=torch.float64) * 8
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return reference.forward([features], [boxes], weight, None, [8.0]).item()


def test_a_cell_centre_reads_the_cell():
    assert read_point(0.5, 0.5) == 1
    assert read_point(2.5, 1.5) == 30


def test_between_centres_is_bilinear():
    assert read_point(1.0, 0.5) == 1.5
    assert read_point(1.75, 1.0) == pytest.approx(0.5 * (0.75 * 2 + 0.25 * 3) + 0.5 * (0.75 * 20 + 0.25 * 30))


def test_outside_is_zero_and_the_border_fades_over_one_cell():
    assert read_point(0.25, 0.5) == 0.75 * 1
    assert read_point(2.5, 2.25) == 0.25 * 30
    assert read_point(-0.5, 0.5) == 0
    assert read_point(3.5, 0.5) == 0
    assert read_point(-100.0, 7000.0) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_point_that_is_not_finite_reads_zero(value):
    assert read_point(value, 0.5) == 0


def test_taps_are_weighted_row_major_and_the_bias_added():
    features = torch.tensor([[[[1.0, 2.0], [10.0, 20.0]]]])
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0]]])
    weight = torch.tensor([[[[1.0, 0.1], [0.01, 0.001]]]])
    output = reference.forward([features], [boxes], weight, torch.tensor([5.0]), [8.0])
    assert output.item() == pytest.approx(5 + 1 + 0.2 + 0.1 + 0.02)
