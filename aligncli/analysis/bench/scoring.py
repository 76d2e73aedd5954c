"""`aligncli bench eval`: the COCO evaluators on the same results, in turns, and whether their numbers are equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from aligncli.analysis.bench.failures import Failure, prepare_each
from aligncli.analysis.bench.fairness import Progress, fast_products, fastest_product, make_timer
from aligncli.analysis.bench.fairness import product_side as default_product_side
from aligncli.analysis.bench.machine import PACKAGES, describe_machine
from aligncli.analysis.bench.made_results import ScoringCase, make_results
from aligncli.analysis.bench.rate_report import RateReport, RateResult
from aligncli.analysis.bench.timing import interleave
from aligncli.engine.metrics import CocoMetrics, Evaluator, compute_metrics
from aligncli.plain import only_finite

EVALUATORS: tuple[Evaluator, ...] = ("hotcoco", "pycocotools")
PEER = "pycocotools"


class Scoring:
    """One evaluator on one set of results; a call scores them, and keeps what came out."""

    def __init__(self, evaluator: Evaluator, ground_truth: dict[str, Any], detections: list[dict[str, Any]]) -> None:
        self._evaluator: Evaluator = evaluator
        self._given = (ground_truth, detections)
        self.scored: CocoMetrics | None = None

    def __call__(self) -> CocoMetrics:
        self.scored = compute_metrics(*self._given, evaluator=self._evaluator, per_class=True)
        return self.scored


def bench_evaluators(
    case: ScoringCase,
    names: Sequence[Evaluator] = EVALUATORS,
    *,
    runs: int,
    seconds: float,
    product_side: int | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> RateReport:
    """Time the evaluators on `case`; they use one thread, whatever torch's number is, or what they like.

    runs: of each; fewer where all together would take more than `seconds`, but three at least if so many are asked
    for. An evaluator that cannot be imported is not timed; one whose numbers are not pycocotools' is wrong.
    """
    results = make_results(case)
    small = make_results(case.small())
    evaluators: dict[str, Evaluator] = {name: name for name in names}

    def prepare(name: str) -> Scoring:
        Scoring(evaluators[name], *small)()
        return Scoring(evaluators[name], *results)

    prepared, failures = prepare_each(names, prepare, progress)
    timer = make_timer("cpu")
    side = product_side or default_product_side("cpu")
    products = fast_products(side, torch.float32, "cpu", timer)
    machine = describe_machine("cpu", packages=(*PACKAGES, *names, "numpy"))
    report = partial(progress, "timing")
    samples = interleave({**products, **prepared}, runs=runs, seconds=seconds, timer=timer, report=report)
    failures |= _differing(prepared)
    return RateReport(
        bench="eval",
        subject=dataclasses.asdict(case) | {"metrics": _metrics(prepared)},
        machine=machine,
        product=fastest_product(side, {name: samples[name] for name in products}),
        results=[
            RateResult(name, "scoring", 0, note=failures[name].reason, is_wrong=failures[name].is_wrong)
            if name in failures
            else RateResult(name, "scoring", 0, samples[name], num_images=case.num_images)
            for name in names
        ],
        peer=PEER,
    )


def _differing(prepared: dict[str, Scoring]) -> dict[str, Failure]:
    """Who computed other numbers than pycocotools; to the last bit."""
    right = _numbers(prepared.get(PEER))
    if right is None:
        return {}
    return {
        name: Failure(f"its numbers are not those of {PEER}", is_wrong=True)
        for name, scoring in prepared.items()
        if _numbers(scoring) != right
    }


def _numbers(scoring: Scoring | None) -> tuple[Any, Any] | None:
    """All metrics, and AP by class; None stands for what is not defined."""
    if scoring is None or scoring.scored is None:
        return None
    return only_finite(scoring.scored.values), only_finite(scoring.scored.per_class)


def _metrics(prepared: dict[str, Scoring]) -> Any:
    """For a reader to see that something was found."""
    numbers = _numbers(prepared.get(PEER)) or next(filter(None, map(_numbers, prepared.values())), ({}, {}))
    return numbers[0]
