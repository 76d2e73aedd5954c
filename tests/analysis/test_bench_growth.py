"""How a training step grows: what is varied, the fit, the picture. No time is asserted."""

import io
import json

import pytest
from PIL import Image

from aligncli.analysis.bench.growth import Growth, Line, Sweep, measure_growth, parse_sweep, varied
from aligncli.analysis.bench.growth_plot import plot_growth
from aligncli.analysis.bench.memory import MemoryUse
from aligncli.analysis.bench.report import Result
from aligncli.analysis.bench.steps import TrainCase
from aligncli.analysis.bench.timing import Sample
from aligncli.analysis.bench.train_report import TrainReport, TrainResult
from aligncli.errors import UserError
from tests.analysis.test_bench_model import MACHINE

CASE = TrainCase()
PRODUCT = Result("product", "product", 600, [Sample(0, 1.0, 1.0)])


def report_of(case):
    """A detector whose time grows as the square of the side, one whose memory grows with the batch, one that fails."""
    square, linear = case.size[0] ** 2, case.batch
    return TrainReport(
        "train",
        {},
        MACHINE,
        PRODUCT,
        [
            TrainResult("square", "step", 6, [Sample(0, square / 1e5, 1.0)], MemoryUse(linear, 0), num_images=1),
            TrainResult("gone", "step", 0, note="why"),
        ],
        peer="square",
    )


def grow(sweep):
    return measure_growth(CASE, sweep, lambda case, _label: report_of(case))


@pytest.mark.parametrize(
    ("quantity", "field", "value"),
    [
        ("size", "size", (96, 96)),
        ("batch", "batch", 96),
        ("objects", "num_objects", 96),
        ("classes", "num_classes", 96),
    ],
)
def test_one_quantity_varies_and_all_else_stays(quantity, field, value):
    case = varied(CASE, quantity, 96)
    changed = {name for name in vars(CASE) if getattr(case, name) != getattr(CASE, name)}
    assert changed == {field}
    assert getattr(case, field) == value


def test_exponents_are_those_of_the_law():
    growth = grow(Sweep("size", (64, 128, 512)))
    square, gone = growth.lines
    assert growth.exponents(square) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-9))
    assert growth.exponents(gone) == (None, None)


def test_values_are_told_as_they_are_measured():
    told = []
    measure_growth(
        CASE, Sweep("batch", (1, 4)), lambda case, label: told.append((label, case.batch)) or report_of(case)
    )
    assert told == [("batch 1, ", 1), ("batch 4, ", 4)]


def test_what_to_vary_is_parsed():
    assert parse_sweep("batch") == Sweep("batch", (1, 2, 4))
    assert parse_sweep("objects=100,0,10,10") == Sweep("objects", (0, 10, 100))


@pytest.mark.parametrize(
    "text", ["colour", "", "batch=", "batch=1", "batch=0,2", "size=a,b", "objects=-1,3", "classes=3,3"]
)
def test_what_cannot_be_varied_is_a_users_error(text):
    with pytest.raises(UserError, match="--vary"):
        parse_sweep(text)


def test_json_has_every_report_and_gives_the_lines_back():
    growth = grow(Sweep("size", (64, 128)))
    document = json.loads(json.dumps(growth.to_json(), allow_nan=False))
    assert len(document["reports"]) == 2
    again = Growth.from_json(document)
    assert (again.sweep, again.lines) == (growth.sweep, growth.lines)


def test_the_picture_has_a_column_a_quantity_and_a_row_for_known_memory():
    both = [grow(Sweep("size", (64, 128))), grow(Sweep("objects", (0, 10, 100)))]
    unknown = Growth(Sweep("batch", (1, 2)), (Line("one", (1.0, 2.0), (None, None)),))
    sizes = [Image.open(io.BytesIO(plot_growth(growths))).size for growths in (both, [unknown])]
    assert sizes[0][1] > sizes[1][1]


def test_long_names_and_names_with_dollars_stay_in_the_picture():
    lines = tuple(Line(name, (1.0, 2.0), (None, None)) for name in ("_a$_^$", "runs/" * 20, *"bcdefgh"))
    figures = [plot_growth([Growth(Sweep("batch", (1, 2)), lines[:count])]) for count in (1, len(lines))]
    low, high = (Image.open(io.BytesIO(figure)) for figure in figures)
    assert low.width == high.width
    assert low.height < high.height  # by the legend's rows
