import numpy as np
import pytest

from aligncli.data.painting import CLUTTER, SHAPES, contrasting_colours, paint_image, shape_mask
from aligncli.data.random_stream import RandomStream

SIZE = 64
BOX = (10.25, 5.5, 50.75, 29.0)


@pytest.mark.parametrize("name", SHAPES)
def test_every_class_fills_its_box_exactly(name):
    rows, columns, coverage = shape_mask(name, BOX, SIZE)
    assert (rows, columns) == (slice(5, 29), slice(10, 51))  # the pixels that the box touches
    for side in (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]):
        assert side.max() > 0
    assert 0 <= coverage.min() <= coverage.max() <= 1


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("rectangle", 1.0),
        ("ellipse", np.pi / 4),
        ("ring", np.pi / 4 * (1 - 0.6**2)),
        ("triangle", 0.5),
        ("diamond", 0.5),
        ("cross", 2 * 0.34 - 0.34**2),
    ],
)
def test_coverage_is_the_area_of_the_shape(name, share):
    _, _, coverage = shape_mask(name, BOX, SIZE)
    box_area = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1])
    assert coverage.sum() == pytest.approx(share * box_area, rel=0.04)


def test_the_triangle_stands_on_its_base():
    _, _, coverage = shape_mask("triangle", BOX, SIZE)
    assert (np.diff(coverage.sum(axis=1)) >= 0).all()


def test_no_clutter_looks_like_a_class():
    masks = {name: shape_mask(name, (0, 0, 30, 30), 30)[2] for name in (*SHAPES, *CLUTTER)}
    for item in CLUTTER:
        for name in SHAPES:
            together = np.minimum(masks[item], masks[name]).sum() / np.maximum(masks[item], masks[name]).sum()
            assert together < 0.7, (item, name)


@pytest.mark.parametrize("label", range(len(SHAPES)))
def test_an_object_differs_from_what_it_covers(label):
    box = (16.0, 16.0, 48.0, 48.0)
    with_object = paint_image(RandomStream(3, label), SIZE, [(label, box)]).astype(int)
    without = paint_image(RandomStream(3, label), SIZE, []).astype(int)  # same background, other noise
    rows, columns, coverage = shape_mask(SHAPES[label], box, SIZE)
    difference = np.abs(with_object - without)[:, rows, columns]
    assert difference[:, coverage == 1].mean(axis=1).max() > 25
    outside = np.abs(with_object - without)[:, :, :14]
    assert outside.mean() < 12


@pytest.mark.parametrize("level", [0, 60, 127, 128, 200, 255])
def test_every_mixture_of_a_fill_stands_out_from_what_it_covers(level):
    mean = np.full(3, level, np.float64)
    pairs = np.array([contrasting_colours(RandomStream(9, seed), mean) for seed in range(200)])
    mixtures = pairs[:, :1] + np.linspace(0, 1, 5)[:, None] * (pairs[:, 1:] - pairs[:, :1])
    assert np.abs(mixtures - mean).max(axis=2).min() > 50
    assert (pairs[:, 0] != pairs[:, 1]).any(axis=1).mean() > 0.95  # there are two colours to mix
