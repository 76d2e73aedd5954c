"""`bench_operator` from the case to the report, on a layer that takes no time. No time is asserted."""

import json
from dataclasses import replace

import pytest
import torch

from aligncli.analysis.bench import contenders, op
from aligncli.analysis.bench.layer import OperatorCase
from aligncli.analysis.bench.machine import Machine, product_flops, square_products, threads
from aligncli.analysis.bench.memory import MemoryUse
from aligncli.analysis.bench.op import bench_operator
from aligncli.analysis.bench.report import Report, Result
from aligncli.analysis.bench.timing import Sample
from aligncli.errors import UserError

CASE = OperatorCase(size=(64, 64), in_channels=4, out_channels=4, levels=("p3", "p4"))
NAMES = ["conv2d", "roi_conv:portable", "deform_conv2d", "roi_align"]


@pytest.fixture(autouse=True)
def no_memory_process(monkeypatch):
    """The process that measures memory has tests of its own, and takes seconds to start."""
    monkeypatch.setattr(op, "_measure_memory", lambda keys, *_: dict.fromkeys(keys, MemoryUse(1000, 0)))


def bench(case=CASE, names=NAMES, **options):
    return bench_operator(case, names, **{"runs": 3, "seconds": 60.0, "product_side": 64} | options)


def test_every_contender_is_sampled_in_both_directions():
    report = bench()
    assert [(result.name, result.part) for result in report.results] == [
        (name, direction) for direction in ("forward", "forward+backward") for name in NAMES
    ]
    assert [[sample.round for sample in result.samples] for result in report.results] == [[0, 1, 2]] * 8
    assert {result.flops for result in report.parts()["forward"]} == {2 * (64 + 16) * 9 * 4 * 4}
    assert report.product.flops == 2 * 64**3
    assert len(report.product.samples) == 3


def test_progress_names_its_stages():
    told = []
    bench(names=["conv2d"], progress=lambda *step: told.append(step))
    assert told[0] == ("checking", 1, 1)
    assert told[-1][0] == "timing"
    assert told[-1][1] == told[-1][2] in (9, 12, 15)  # forward, both, and up to three products, thrice


def test_what_torchvision_lacks_is_said_and_the_others_are_timed():
    report = bench(replace(CASE, dtype="bfloat16"))
    notes = {result.name: result.note for result in report.results}
    assert notes["conv2d"] == notes["roi_conv:portable"] == ""
    for name in ("deform_conv2d", "roi_align"):
        # It may learn bfloat16 one day, and then it is timed.
        timed = [bool(result.samples) for result in report.results if result.name == name]
        assert timed == [not notes[name]] * 2
        assert notes[name] in ("", "torchvision has no bfloat16 on cpu")


def test_a_backend_that_cannot_be_had_says_why(monkeypatch):
    def refuse(*_, **__):
        raise UserError("native cannot be built: no compiler")

    monkeypatch.setattr(contenders, "roi_conv", refuse)
    report = bench(names=["conv2d", "roi_conv:portable"])
    assert [result.note for result in report.parts()["forward"]] == ["", "native cannot be built: no compiler"]


def test_a_wrong_contender_is_not_timed(monkeypatch):
    right = contenders.roi_conv
    monkeypatch.setattr(contenders, "roi_conv", lambda *args, **kw: [level * 1.1 for level in right(*args, **kw)])
    report = bench(names=["conv2d", "roi_conv:portable"])
    for result in report.results:
        assert result.is_wrong == (result.name == "roi_conv:portable") == (not result.samples)
    assert "its output is wrong by" in report.results[1].note


def test_a_bug_is_not_taken_for_a_missing_type(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("index out of range")

    monkeypatch.setattr(contenders, "roi_conv", fail)
    with pytest.raises(RuntimeError, match="index out of range"):
        bench()


def test_the_fastest_of_equal_products_is_the_limit():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        first, *others = [product().double() for product in square_products(96, dtype, "cpu").values()]
        assert first.shape == (96, 96)
        for other in others:
            torch.testing.assert_close(other, first, rtol=2e-2, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    assert product_flops(96) == 2 * 96**3


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


MACHINE = Machine("cpu", "a processor", 8, 2, "AVX2", "Linux", {"torch": "2.99"}, load=0.1)


def result(name, part, seconds, **options):
    return Result(name, part, 600, [Sample(0, seconds, 2 * seconds)], **options)


def test_a_report_derives_rates_and_ratios_from_medians():
    slow = result("slow", "forward", 6.0)
    uneven = replace(slow, samples=[Sample(number, wall, 1.0) for number, wall in enumerate([9.0, 1.0, 3.0])])
    peer = result("peer", "forward", 2.0)
    report = Report("op", {}, MACHINE, result("product", "product", 1.0), [peer, slow, uneven], peer="peer")
    assert [report.ratio_to_peer(one) for one in report.results] == [1.0, 3.0, 1.5]
    assert slow.flops_per_second == 100
    assert report.share_of_product(slow) == pytest.approx(1 / 6)
    assert report.share_of_processor() == 1.0


def test_ratios_stay_within_a_part_and_need_the_peer():
    peer, other = result("peer", "forward", 2.0), result("other", "both", 6.0)
    report = Report("op", {}, MACHINE, result("product", "product", 1.0), [peer, other], peer="peer")
    assert report.ratio_to_peer(other) is None
    assert report.ratio_to_peer(Result("other", "forward", 600, note="not here")) is None


def test_json_carries_every_sample_and_what_was_not_timed():
    report = bench(replace(CASE, dtype="bfloat16"), names=["conv2d", "roi_align"])
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["bench"] == "op"
    assert document["subject"]["levels"] == [
        {"name": "p3", "height": 8, "width": 8, "stride": 8},
        {"name": "p4", "height": 4, "width": 4, "stride": 16},
    ]
    first = document["results"][0]
    assert [sample["round"] for sample in first["samples"]] == [0, 1, 2]
    assert first["seconds"]["median"] == sorted(sample["wall"] for sample in first["samples"])[1]
    assert (first["ratio_to_peer"], first["memory"]["peak"]) == (1.0, 1000)
    assert document["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(document["results"][1]) >= {"name", "part", "note"}
