"""How `shapes` images look: background, clutter, filled shapes and pixel noise.

The canvas is float32 (3, H, W) but holds whole numbers 0..255, and grids and weights are whole numbers of a
small unit: sums and products are exact, so no order of summation and no SIMD width can change a pixel.
Masks are sampled 3 x 3 a pixel. Box frame: u, v run from -1 to 1 over the box, v downwards.
"""

from __future__ import annotations

import math

import numpy as np

from aligncli.data.random_stream import RandomStream

Box = tuple[float, float, float, float]  # xyxy, pixels

SHAPES = ("ellipse", "rectangle", "triangle", "diamond", "cross", "ring")
CLUTTER = ("half disc", "diagonal bar", "angle", "two bars")

_SUPERSAMPLING = 3
_ARM_HALF_WIDTH = 0.34  # of the cross, in half boxes
_INNER_RADIUS = 0.6  # of the ring
_CONTRAST = 50  # a fill differs by more than this from what it covers, in one channel at least
_NUM_CANDIDATE_COLOURS = 16  # one fails in 1 of 4 cases at worst; all of them practically never
_GRIDS = ((4, 21), (9, 15), (24, 12))  # background noise: cells a side, deviation
_WEIGHT_UNIT = 64  # interpolation weights are multiples of 1/64


def paint_image(stream: RandomStream, size: int, objects: list[tuple[int, Box]]) -> np.ndarray:
    """Background, clutter, then the objects in order, each over the ones before. uint8 (3, size, size).

    `objects` are (label, box), label an index into SHAPES, boxes inside the image.
    """
    canvas = _background(stream, size)
    for _ in range(4 + stream.below(5)):
        _paint_clutter(stream, canvas)
    for label, box in objects:
        _paint(stream, canvas, box, SHAPES[label], opacity=stream.uniform(0.8, 1.0))
    deviation = np.float32(_snap(stream.uniform(2.0, 8.0)))
    canvas += stream.bell(3, size, size) * deviation
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def shape_mask(name: str, box: Box, size: int) -> tuple[slice, slice, np.ndarray]:
    """The rows and columns of a `size` x `size` image that a shape in `box` touches, and its coverage.

    Coverage is float32 in 0..1, the share of nine samples a pixel.
    """
    x1, y1, x2, y2 = box
    rows = slice(math.floor(y1), min(math.ceil(y2), size))
    columns = slice(math.floor(x1), min(math.ceil(x2), size))
    inside = _inside(name, _box_frame(columns, x1, x2)[None, :], _box_frame(rows, y1, y2)[:, None])
    samples = inside.view(np.uint8)
    tall = samples[0::3] + samples[1::3] + samples[2::3]
    hits = tall[:, 0::3] + tall[:, 1::3] + tall[:, 2::3]
    return rows, columns, hits.astype(np.float32) / np.float32(_SUPERSAMPLING**2)


def contrasting_colours(stream: RandomStream, mean: np.ndarray) -> np.ndarray:
    """Two colours, float32 (2, 3), that differ from `mean` (3,) by more than 50 in one channel.

    They lie on the same side of it, so that every mixture of the two keeps the distance.
    """
    colours = stream.bytes(_NUM_CANDIDATE_COLOURS, 3).astype(np.float32)
    away = colours - mean
    first = int(np.argmax(np.abs(away).max(axis=1) > _CONTRAST))
    channel = int(np.argmax(np.abs(away[first])))
    partners = np.flatnonzero(away[:, channel] * np.sign(away[first, channel]) > _CONTRAST)
    second = int(partners[-1]) if len(partners) else first
    return colours[[first, second]]


def _box_frame(pixels: slice, low: float, high: float) -> np.ndarray:
    """Sample positions of a run of pixels in the box frame."""
    samples = np.arange(pixels.start * _SUPERSAMPLING, pixels.stop * _SUPERSAMPLING)
    positions = (samples + 0.5) / _SUPERSAMPLING
    return ((positions - (low + high) / 2) * (2 / (high - low))).astype(np.float32)


def _inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which samples are inside the shape. u (1, w), v (h, 1) -> bool (h, w)."""
    across, down = np.abs(u), np.abs(v)
    in_box = (across <= 1) & (down <= 1)
    match name:
        case "ellipse":
            return u * u + v * v <= 1
        case "rectangle":
            return in_box
        case "triangle":
            return in_box & (across <= (v + 1) / 2)
        case "diamond":
            return across + down <= 1
        case "cross":
            return in_box & ((across <= _ARM_HALF_WIDTH) | (down <= _ARM_HALF_WIDTH))
        case "ring":
            squared_radius = u * u + v * v
            return (squared_radius <= 1) & (squared_radius >= _INNER_RADIUS**2)
        case "half disc":
            return (u * u + v * v <= 1) & (v >= 0)
        case "diagonal bar":
            return in_box & (np.abs(u - v) <= 0.4)
        case "angle":
            return in_box & ((u <= -0.4) | (v >= 0.4))
        case "two bars":
            return in_box & (across >= 0.4)
    raise AssertionError(name)


def _background(stream: RandomStream, size: int) -> np.ndarray:
    """A base colour plus smoothed noise of three grain sizes, (3, size, size)."""
    base = [60 + stream.below(136) for _ in range(3)]
    canvas = np.empty((3, size, size), np.float32)
    canvas[:] = np.array(base, np.float32)[:, None, None]
    for cells, deviation in _GRIDS:
        grid = np.rint(stream.bell(3, cells, cells) * np.float32(deviation))
        weights = _interpolation_weights(size, cells)
        canvas += (weights @ grid @ weights.T) / np.float32(_WEIGHT_UNIT**2)
    return np.clip(np.rint(canvas), 0, 255)


def _interpolation_weights(size: int, cells: int) -> np.ndarray:
    """Linear interpolation from `cells` knots, the outer ones on the border, in 1/64. (size, cells)"""
    position = np.arange(size) * ((cells - 1) / (size - 1))
    left = np.minimum(position.astype(np.int64), cells - 2)
    right_weight = np.rint((position - left) * _WEIGHT_UNIT).astype(np.float32)
    weights = np.zeros((size, cells), np.float32)
    weights[np.arange(size), left] = _WEIGHT_UNIT - right_weight
    weights[np.arange(size), left + 1] = right_weight
    return weights


def _paint_clutter(stream: RandomStream, canvas: np.ndarray) -> None:
    """Something without a label: a third at full contrast, the rest faint."""
    size = canvas.shape[1]
    name = CLUTTER[stream.below(len(CLUTTER))]
    width, height = (_snap(stream.uniform(size / 16, size / 3)) for _ in range(2))
    x1, y1 = _snap(stream.uniform(0, size - width)), _snap(stream.uniform(0, size - height))
    opacity = stream.uniform(0.8, 1.0) if stream.below(3) == 0 else stream.uniform(0.1, 0.3)
    _paint(stream, canvas, (x1, y1, x1 + width, y1 + height), name, opacity=opacity)


def _paint(stream: RandomStream, canvas: np.ndarray, box: Box, name: str, *, opacity: float) -> None:
    rows, columns, coverage = shape_mask(name, box, canvas.shape[1])
    covered = canvas[:, rows, columns]  # a view: painting it paints the canvas
    first, second = contrasting_colours(stream, covered.mean(axis=(1, 2), dtype=np.float64))
    texture = _texture(stream, rows, columns)
    fill = first[:, None, None] + (second - first)[:, None, None] * texture
    covered += (fill - covered) * (coverage * np.float32(_snap(opacity)))
    np.rint(covered, out=covered)


def _texture(stream: RandomStream, rows: slice, columns: slice) -> np.ndarray:
    """How much of the second colour each pixel takes: nothing (plain), stripes or a gradient. (h, w)"""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    kind = stream.below(3)
    slope_x, slope_y = ((1, 0), (0, 1), (1, 1), (1, -1))[stream.below(4)]
    period = 4 + stream.below(9)  # of the stripes, pixels
    if kind == 0:
        return np.zeros((height, width), np.float32)
    along = slope_x * np.arange(width)[None, :] + slope_y * np.arange(height)[:, None]
    if kind == 1:
        return (along % period >= period // 2).astype(np.float32)
    along = (along - along.min()).astype(np.float32)
    return along / max(along.max(), np.float32(1))


def _snap(value: float) -> float:
    """To a multiple of 1/64: exact in float32 and blind to the last bit of libm."""
    return round(value * 64) / 64
