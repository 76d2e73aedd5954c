"""FLOPs and traffic by watching a call, and the pictures drawn from them."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from aligncli.analysis.bench.bars_plot import bar_label, plot_bars
from aligncli.analysis.bench.contenders import OURS, PEERS, build_call
from aligncli.analysis.bench.layer import DIRECTIONS, OperatorCase
from aligncli.analysis.bench.report import Report, Result
from aligncli.analysis.bench.roofline import name_colours, roofline_points
from aligncli.analysis.bench.timing import Sample
from aligncli.analysis.bench.work import watch_work
from tests.analysis.test_bench_model import MACHINE

CASE = OperatorCase(size=(64, 96), batch=2, in_channels=12, out_channels=10, levels=("p3", "p4"), kernel_size=5)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", [*PEERS, f"{OURS}portable"])
def test_every_contender_is_counted_as_the_convolution_that_it_replaces(name, direction):
    work, outputs = watch_work(build_call(name, direction, CASE))
    assert work.flops == CASE.flops(direction)
    assert outputs[0].shape[0] == CASE.batch
    assert work.traffic > sum(output.numel() * 4 for output in outputs if output.dim() > 2)


def test_traffic_is_operands_and_results_once():
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    work, product = watch_work(lambda: torch.relu(a @ b))
    assert product.shape == (8, 4)
    assert (work.flops, work.traffic) == (2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))


def test_products_that_are_added_in_place_are_counted():
    total, a, b = torch.zeros(8, 4), torch.ones(8, 16), torch.ones(16, 4)
    work, _ = watch_work(lambda: total.addmm_(a, b))
    assert work.flops == 2 * 8 * 16 * 4


def test_composite_operators_are_counted_in_inference_mode_too():
    x, weight = torch.ones(1, 3, 8, 8), torch.ones(5, 3, 3, 3)
    with torch.inference_mode():
        work, _ = watch_work(lambda: torch.nn.functional.conv2d(x, weight))
    assert (work.flops, work.traffic) == (2 * 36 * 27 * 5, 4 * (192 + 135 + 180))


def result(name, part, seconds, **options):
    return Result(name, part, 600, [Sample(0, seconds, seconds)], traffic=100, **options)


def make_report(bandwidth=1e9):
    product = Result("product", "product", 6_000, [Sample(0, 1.0, 1.0)])
    results = [
        result("fast", "forward", 0.2),
        result("peer", "forward", 0.1),
        result("peer", "forward+backward", 3.0),
        Result("gone", "forward", 600, note="why"),
    ]
    return Report("op", {}, MACHINE, product, results, peer="peer", bandwidth=bandwidth)


def test_labels_carry_time_and_ratio():
    report = make_report()
    assert [bar_label(report, one) for one in report.results] == [
        "200 ms   2.00", "100 ms   1.00", "3,000 ms   1.00", "not run"
    ]  # fmt: skip


def test_a_point_is_flops_a_byte_and_what_is_reached():
    [first, *_] = roofline_points(make_report())
    assert (first[1], first[2]) == (6.0, pytest.approx(3e-6))
    assert len(roofline_points(make_report())) == 3
    unknown = Result("unknown", "forward", 0, [Sample(0, 1.0, 1.0)])
    assert roofline_points(replace(make_report(), results=[unknown])) == []


def test_the_picture_has_a_bar_a_contender_and_a_roofline_where_the_bandwidth_is_known():
    pictures = [Image.open(io.BytesIO(plot_bars(make_report(bandwidth)))) for bandwidth in (1e9, None)]
    assert pictures[0].height > pictures[1].height
    drawn = {tuple(colour) for colour in np.asarray(pictures[1].convert("RGB")).reshape(-1, 3).tolist()}
    for name in ("fast", "peer"):
        colour = name_colours(["fast", "peer"])[name]
        assert tuple(round(255 * value) for value in colour) in drawn


def test_names_with_dollars_are_no_formulas():
    report = make_report()
    odd = [replace(one, name=f"_{one.name}$_^$") for one in report.results]
    report = replace(report, results=odd, peer=odd[0].name)
    assert Image.open(io.BytesIO(plot_bars(report, conditions="on a$_^$"))).format == "PNG"
