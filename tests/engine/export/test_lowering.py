"""RoIConv in an exported file is RoIConv."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncli.engine.export.lowering import Lowering, rows_by_grid_sample, rows_function
from aligncli.ops import implicit_rois, reference


def random_boxes(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Of all sizes, some beyond the borders, some reversed."""
    return torch.rand(*shape, 4, generator=generator, dtype=torch.float64) * 120 - 30


@pytest.mark.parametrize("lowering", Lowering)
@settings(deadline=None, max_examples=25)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    cells=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    boxes_per_cell=st.integers(1, 3),
    num_images=st.integers(1, 2),
    seed=st.integers(0, 2**20),
)
def test_every_lowering_is_the_reference(lowering, kernel, cells, boxes_per_cell, num_images, seed):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(num_images, 3, *size, generator=generator).double() for size in (cells, cells[::-1])]
    boxes = [random_boxes(generator, num_images, boxes_per_cell * cells[0] * cells[1]) for _ in features]
    weight = torch.randn(5, 3, *kernel, generator=generator).double()
    bias = torch.randn(5, generator=generator).double() if seed % 2 else None
    wanted = reference.forward(features, boxes, weight, bias, [8.0, 16.0])
    found = rows_function(lowering)(features, boxes, weight, bias, [8.0, 16.0], "auto")
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_grid_sample_takes_any_number_of_boxes():
    generator = torch.Generator().manual_seed(0)
    features, weight = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 3, 3, 3).double()
    boxes = random_boxes(generator, 2, 7)
    wanted = reference.forward([features], [boxes], weight, None, [8.0])
    torch.testing.assert_close(rows_by_grid_sample([features], [boxes], weight, None, [8.0], "auto"), wanted)


@pytest.mark.parametrize("lowering", Lowering)
def test_a_lowering_on_implicit_rois_is_conv2d(lowering):
    features, weight = torch.randn(1, 3, 6, 7).double(), torch.randn(4, 3, 3, 3).double()
    boxes = implicit_rois(6, 7, 3, 8.0, dtype=torch.float64).view(1, -1, 4)
    rows = rows_function(lowering)([features], [boxes], weight, None, [8.0], "auto")
    wanted = torch.nn.functional.conv2d(features, weight, padding=1)
    torch.testing.assert_close(rows.T.view(1, 4, 6, 7), wanted)
