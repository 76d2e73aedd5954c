"""Figure 4 over a data set: splits partition, sets mean what they say, examples are found objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from aligncli.analysis.alignment.distributions import merge
from aligncli.analysis.alignment.locations import Locations
from aligncli.analysis.alignment.measure import ASPECTS, SCALES, measure_alignment
from aligncli.analysis.alignment.overlay import draw_overlay
from aligncli.analysis.alignment.plots import (
    COLOURS,
    legend_names,
    pick_colours,
    plot_distributions,
    plot_refinement,
    plot_splits,
)
from aligncli.analysis.figures import save_figure
from aligncli.data.dataset import Target

# Four locations an image, xyxy: the implicit RoI, the box, its score. IoUs 1, 1/2, 0 and 1 (in the padding).
IMPLICIT = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [90, 90, 99, 99]])
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 10], [0, 0, 40, 10], [90, 90, 99, 99]])
SCORES = torch.tensor([0.9, 0.3, 0.1, 0.95])


class Watcher:
    """An observer whose locations are those above, on two levels that are alike."""

    title = "RoIConv 3×3"
    remarks = ("as told",)

    def __call__(self, images):
        def for_all(x):
            return x.expand(len(images), *x.shape)

        real = for_all(torch.tensor([True, True, True, False]))
        pairs = {
            "refined anchors": (for_all(BOXES), for_all(IMPLICIT)),
            "initial anchors": (for_all(IMPLICIT), for_all(IMPLICIT)),
        }
        taps = for_all(IMPLICIT.view(4, 2, 2))
        levels = ("P3", "P4")
        return [Locations(level, pairs, for_all(BOXES), for_all(SCORES), real, lambda: taps) for level in levels]


def batches(count, *, size=2, scale=1.0):
    for first in range(0, count, size):
        ids = range(first, min(first + size, count))
        images = [torch.full((3, 64, 64), 100, dtype=torch.uint8) for _ in ids]
        yield (
            images,
            [
                Target(
                    boxes=torch.tensor([[0.0, 0, 10, 10], [0, 0, 19.5, 10.5]]),
                    labels=torch.tensor([0, 1]),
                    crowd=torch.tensor([False, False]),
                    image_id=number,
                    size=(64, 64),
                    scale=(scale, scale),
                )
                for number in ids
            ],
        )


def measure(count=3, *, score=0.2, scale=1.0, num_example_images=0, name="run"):
    return measure_alignment(
        Watcher(),
        batches(10, scale=scale),
        name=name,
        num_images=count,
        score=score,
        area_bins=(150.0, 300.0),
        num_example_images=num_example_images,
    )


def test_only_real_locations_of_the_wanted_images_count():
    measurement, _ = measure(3)
    assert measurement.num_images == 3
    whole = measurement.distribution()
    assert whole.num_locations == 3 * 2 * 3  # images, levels, real locations
    assert whole.mean == pytest.approx(0.5)
    assert measurement.distribution(comparison="initial anchors").mean == 1


def test_sets_are_by_score_and_by_ground_truth():
    measurement, _ = measure(1)
    confident = measurement.distribution("confident")
    assert (confident.num_locations, confident.mean) == (4, pytest.approx(0.75))
    assert measurement.distribution("foreground").num_locations == 4  # 0..10 and 0..20 wide; 40 is too wide
    assert measure(1, score=0.89)[0].distribution("confident").num_locations == 2
    assert measure(1, score=0.99)[0].distribution("confident").num_locations == 0


def test_every_split_partitions_every_set():
    measurement, _ = measure(4)
    for comparison in measurement.groups:
        for subset in ("all", "confident", "foreground"):
            whole = measurement.distribution(subset, comparison=comparison)
            for split, parts in measurement.splits().items():
                pieces = [measurement.distribution(subset, comparison=comparison, **{split: part}) for part in parts]
                assert (merge(pieces).counts == whole.counts).all()
                assert merge(pieces).total == pytest.approx(whole.total)


def test_locations_are_split_by_their_boxes_area_in_the_original_image_and_their_aspect():
    def counts(measurement, split, parts):
        return [measurement.distribution(**{split: part}).num_locations for part in parts]

    same, _ = measure(1)
    assert counts(same, "scale", SCALES) == [2, 2, 2]  # 100, 200 and 400 square pixels
    assert counts(same, "aspect", ASPECTS) == [2, 2, 0, 2]  # 1, 2 and 4; an edge belongs to the part below
    halved, _ = measure(1, scale=0.5)  # 400, 800 and 1600 in the original
    assert counts(halved, "scale", SCALES) == [0, 0, 6]


def test_rows_hold_every_set_and_part():
    measurement, _ = measure(1)
    rows = measurement.to_json()["comparisons"][0]["rows"]
    assert len(rows) == 3 * (1 + 2 + len(SCALES) + len(ASPECTS))
    assert rows[0]["set"] == "all"
    assert rows[0]["split"] == rows[0]["part"] == ""
    assert sum(rows[0]["histogram"]) == rows[0]["locations"] == 6


def test_examples_are_the_most_confident_finders_of_objects():
    _, examples = measure(3, num_example_images=2)
    assert [example.key for example in examples] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    first, second = examples[:2]
    assert (first.score, first.iou) == (pytest.approx(0.9), 1)
    assert (second.score, second.iou) == (pytest.approx(0.3), pytest.approx(0.5))
    np.testing.assert_array_equal(second.box, BOXES[1])
    np.testing.assert_array_equal(second.taps, IMPLICIT[1].view(2, 2))
    assert first.pixels.shape == (64, 64, 3)
    assert measure(3, num_example_images=2, score=0.99)[1] == []


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_figures_are_written_as_png_pdf_and_svg_the_same_each_time(tmp_path):
    measured = [measure(2, name=name, num_example_images=2) for name in ("one", "two " * 9)]
    measurements = [measurement for measurement, _ in measured]
    overlay = draw_overlay([(name, examples) for name, (_, examples) in zip(("one", "two"), measured)])
    assert overlay is not None
    figures = {
        "distributions": plot_distributions,
        "splits": plot_splits,
        "boxes": plot_refinement,
        "overlay": lambda _: overlay,
    }
    for name, draw in figures.items():
        for path in save_figure(draw(measurements), tmp_path, name):
            magic = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[path.suffix]
            assert path.read_bytes().startswith(magic)
    first = (tmp_path / "splits.svg").read_bytes()
    save_figure(plot_splits(measurements), tmp_path, "splits")
    assert (tmp_path / "splits.svg").read_bytes() == first


def test_curves_show_the_shares_and_a_spike_that_leaves_the_panel_is_labelled():
    measurement, _ = measure(2)
    spike = replace(measurement, groups={"refined anchors": measurement.groups["initial anchors"]})
    whole = plot_distributions([measurement, spike]).axes[0]
    assert [text.get_text() for text in whole.texts] == ["100%"]
    assert whole.get_ylim()[1] < 0.5
    values = whole.patches[0].get_data().values
    assert values.sum() == pytest.approx(1)
    assert values[-1] == pytest.approx(1 / 3)


def test_a_set_without_locations_is_said_to_be_empty():
    measurement, examples = measure(1, score=0.99, num_example_images=1)
    confident = plot_distributions([measurement]).axes[1]
    assert "no such location" in [text.get_text() for text in confident.texts]
    plot_splits([measurement])
    plot_refinement([measurement])
    assert draw_overlay([("run", examples)]) is None


def test_detectors_keep_apart_in_legends_and_colours():
    one, two = measure(1, name="one")[0], measure(1, name="two")[0]
    assert legend_names([one]) == ["RoIConv 3×3"]
    assert legend_names([one, two]) == ["RoIConv 3×3, one", "RoIConv 3×3, two"]
    assert pick_colours([one]) == pick_colours([one, two])[:1]
    assert len(set(pick_colours([one] * len(COLOURS)))) == len(COLOURS)


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_names_with_dollars_and_underscores_are_no_formulas_and_stay_in_legends():
    measured = [measure(2, name=name, num_example_images=2) for name in ("a$_^$", "a$_^$" * 12)]
    measurements = [replace(measurement, title="_$^$") for measurement, _ in measured]
    names = legend_names(measurements)
    assert names[0] == "_$^$, a$_^$"  # as they are: a report has them as text too
    rows = [(name, examples) for name, (_, examples) in zip(names, measured, strict=True)]
    splits = plot_splits(measurements)
    for figure in (plot_distributions(measurements), splits, plot_refinement(measurements), draw_overlay(rows)):
        assert figure is not None
        figure.draw_without_rendering()
    (legend,) = splits.legends
    assert legend.get_texts()[0].get_text() == "\u200b_\\$^\\$, a\\$_^\\$"
    assert len(legend.get_texts()) == 2


def test_the_overlay_takes_what_most_detectors_found():
    _, examples = measure(3, num_example_images=3)
    without_first = [example for example in examples if example.key != (0, 0)]
    figure = draw_overlay([("one", examples), ("two", without_first)], num_objects=3)
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 2 * 3
    assert titles[0] == "IoU 0.50   score 0.30"  # the object that both found, not the better one that one did
    assert titles[1] == "IoU 1.00   score 0.90"
