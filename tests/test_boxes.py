"""Box arithmetic against hand-computed numbers, inverses, and hostile input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncli.boxes import box_areas, clip_boxes, decode_boxes, encode_boxes, pairwise_intersection

coordinate = st.floats(-2000, 2000, width=32)
side = st.floats(0.5, 2000, width=32)
boxes = st.tuples(coordinate, coordinate, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
wild = st.floats(allow_nan=True, allow_infinity=True, width=32)


def test_encoding_is_the_shift_in_sides_and_the_log_of_the_growth():
    reference = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    box = torch.tensor([[5.0, 0.0, 25.0, 20.0]])  # centre moves by (10, 0), width doubles
    assert torch.allclose(encode_boxes(reference, box), torch.tensor([[1.0, 0.0, math.log(2), 0.0]]))


def test_stds_divide_the_deltas():
    reference, box = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[1.0, 1.0, 11.0, 11.0]])
    assert torch.allclose(encode_boxes(reference, box, (0.1, 0.1, 0.2, 0.2)), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))


@given(boxes, boxes)
def test_decoding_inverts_encoding_up_to_the_clamp(reference, box):
    reference, box = (torch.tensor([values], dtype=torch.float64) for values in (reference, box))
    deltas = encode_boxes(reference, box, (0.1, 0.1, 0.2, 0.2))
    growth = ((box[:, 2:] - box[:, :2]) / (reference[:, 2:] - reference[:, :2])).max()
    if growth < 1000 / 16:
        assert torch.allclose(decode_boxes(reference, deltas, (0.1, 0.1, 0.2, 0.2)), box, atol=1e-6, rtol=1e-9)


def test_growth_in_one_step_is_clamped():
    decoded = decode_boxes(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[0.0, 0.0, 50.0, 50.0]]))
    assert torch.allclose(box_areas(decoded), torch.tensor([1000.0**2]), rtol=1e-4)


@settings(max_examples=300)
@given(st.lists(st.tuples(wild, wild, wild, wild), min_size=1, max_size=5), st.integers(1, 40), st.integers(1, 40))
def test_clipped_boxes_are_finite_inside_and_at_least_one_pixel(values, height, width):
    clipped = clip_boxes(torch.tensor([values]), torch.tensor([[height, width]]), min_side=1.0)[0]
    assert torch.isfinite(clipped).all()
    assert (clipped >= 0).all()
    assert (clipped <= torch.tensor([width, height, width, height])).all()
    assert (clipped[:, 2:] - clipped[:, :2] >= 1 - 1e-5).all()


def test_a_box_inside_the_image_is_not_changed_by_clipping():
    inside = torch.tensor([[[1.5, 2.0, 9.0, 7.25]]])
    assert torch.equal(clip_boxes(inside, torch.tensor([[8, 10]]), min_side=1.0), inside)


@pytest.mark.parametrize(
    ("other", "area"),
    [((5, 5, 15, 15), 25.0), ((10, 0, 20, 10), 0.0), ((2, 2, 4, 4), 4.0), ((-5, -5, 50, 50), 100.0)],
)
def test_intersection_of_half_open_boxes(other, area):
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert pairwise_intersection(box, torch.tensor([other], dtype=torch.float32)).item() == area
