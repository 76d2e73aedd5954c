"""The picture of docs/roi_conv.md shows the operator's own geometry, not a drawing of it."""

import io

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle
from PIL import Image

from aligncli.analysis.explain import BOX, CELL, STRIDE, draw_roi_conv
from aligncli.ops import roi_conv


def scatters(axes):
    """Point sets (n, 2) of a panel in cells, in drawing order."""
    return [np.asarray(drawn.get_offsets()) for drawn in axes.collections if isinstance(drawn, PathCollection)]


def rectangles(axes):
    """(x1, y1, x2, y2) of each, in cells."""
    return {
        tuple(round(float(side), 6) for side in (*patch.get_xy(), *np.add(patch.get_xy(), patch.get_bbox().size)))
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_the_convolution_reads_the_cells_around_its_own(kernel_size):
    left, _ = draw_roi_conv(kernel_size=kernel_size).axes
    [taps] = scatters(left)
    reach = np.arange(kernel_size) - kernel_size // 2 + 0.5
    expected = [(CELL[0] + x, CELL[1] + y) for y in reach for x in reach]
    np.testing.assert_allclose(taps, expected)
    low = np.subtract(CELL, kernel_size // 2)
    assert tuple(float(side) for side in (*low, *(low + kernel_size))) in rectangles(left)


def test_roi_conv_reads_where_the_picture_shows_it():
    # A map that holds its own coordinates gives them back at each tap.
    _, right = draw_roi_conv().axes
    _, taps = scatters(right)
    y, x = torch.meshgrid(torch.arange(10.0) + 0.5, torch.arange(14.0) + 0.5, indexing="ij")
    coordinates = torch.stack([x, y])[None].double()
    pick_taps = torch.zeros(18, 2, 3, 3, dtype=torch.float64)
    for tap in range(9):
        for axis in range(2):
            pick_taps[2 * tap + axis, axis, tap // 3, tap % 3] = 1
    box = torch.tensor(BOX, dtype=torch.float64)[None, None]
    read = roi_conv(coordinates, box, pick_taps, stride=STRIDE, backend="reference").view(9, 2)
    np.testing.assert_allclose(taps, read.numpy())
    assert tuple(round(side / STRIDE, 6) for side in BOX) in rectangles(right)


def test_the_four_cells_of_the_last_tap_are_as_strong_as_their_weights():
    _, right = draw_roi_conv().axes
    _, taps = scatters(right)
    shades = {
        tuple(float(side) for side in patch.get_xy()): patch.get_alpha()
        for patch in right.patches
        if isinstance(patch, Rectangle) and patch.get_alpha() is not None
    }
    assert len(shades) == 4
    nearest = tuple(float(side) for side in np.floor(taps[-1]))
    assert max(shades, key=shades.__getitem__) == nearest


def test_another_cell_and_box_can_be_drawn_and_saved():
    figure = draw_roi_conv(kernel_size=7, cell=(8, 6), box=(96.0, 48.0, 200.0, 150.0))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=50)
    with Image.open(picture) as image:
        assert image.size == (550, 235)
