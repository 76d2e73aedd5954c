"""`aligncli bench eval` without the command line, on a few images. No time is asserted."""

import json
import sys

import pytest

from aligncli.analysis.bench import scoring
from aligncli.analysis.bench.made_results import HEIGHT, WIDTH, ScoringCase, make_results
from aligncli.analysis.bench.scoring import bench_evaluators
from aligncli.engine.metrics import compute_metrics

CASE = ScoringCase(num_images=30, num_classes=5, num_detections=20, num_objects=4)


def bench(case=CASE):
    return bench_evaluators(case, runs=2, seconds=60.0, product_side=64)


def test_evaluators_take_turns_and_agree():
    report = bench()
    hotcoco, pycocotools = report.results
    assert [[sample.round for sample in result.samples] for result in report.results] == [[0, 1]] * 2
    assert report.speed_up(hotcoco) == pytest.approx(pycocotools.seconds.median / hotcoco.seconds.median)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["subject"]["num_detections"] == 20
    assert 5 < document["subject"]["metrics"]["AP"] < 95
    assert document["machine"]["versions"].keys() >= {"hotcoco", "pycocotools", "numpy"}


def test_other_numbers_are_wrong_and_not_timed(monkeypatch):
    def score(*given, evaluator, **options):
        scored = compute_metrics(*given, evaluator="hotcoco", **options)
        if evaluator == "hotcoco":
            scored.per_class["class 3"] += 1e-12
        return scored

    monkeypatch.setattr(scoring, "compute_metrics", score)
    wrong, right = bench().results
    assert (wrong.note, wrong.is_wrong, wrong.samples) == ("its numbers are not those of pycocotools", True, [])
    assert right.samples


def test_an_evaluator_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    missing, timed = bench().results
    assert "'hotcoco' cannot be imported" in missing.note
    assert len(timed.samples) == 2


def test_made_results_are_as_asked_repeat_and_match_in_every_way():
    document, detections = make_results(CASE)
    assert (document, detections) == make_results(CASE)
    assert (len(document["images"]), len(document["annotations"]), len(detections)) == (30, 120, 600)
    for x, y, width, height in (annotation["bbox"] for annotation in document["annotations"]):
        assert min(x, y) >= 0
        assert x + width <= WIDTH + 1e-9
        assert y + height <= HEIGHT + 1e-9
    values = compute_metrics(document, detections).values
    assert 0 < values["AP75"] < values["AP50"] < 100
    assert all(values[name] > 0 for name in ("APs", "APm", "APl"))


def test_there_are_crowds_among_many_objects():
    document, _ = make_results(ScoringCase(num_images=200, num_detections=1))
    assert 0 < sum(annotation["iscrowd"] for annotation in document["annotations"]) < 100
