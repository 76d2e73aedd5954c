"""`aligncli bench data`: passes of our loader and of a plain loop over the same files, in turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from aligncli.analysis.bench.failures import prepare_each
from aligncli.analysis.bench.fairness import Progress, fast_products, fastest_product, make_timer
from aligncli.analysis.bench.fairness import product_side as default_product_side
from aligncli.analysis.bench.loaders import OURS, PLAIN, LoaderCase, OurPass, PlainPass, pixel_difference
from aligncli.analysis.bench.machine import PACKAGES, describe_machine
from aligncli.analysis.bench.rate_report import RateReport, RateResult
from aligncli.analysis.bench.timing import interleave
from aligncli.errors import DataError

Pass = Callable[[], int]  # returns how many images there were


def bench_loaders(
    case: LoaderCase,
    *,
    runs: int,
    seconds: float,
    product_side: int | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> RateReport:
    """Time passes on `case`, with torch's number of threads in this process; workers have one each.

    runs: passes of each; fewer where all together would take more than `seconds`. Raises DataError. A loader
    whose images are not the plain loop's is not timed, and its result says why.
    """
    plain = PlainPass(case)
    ours = OurPass(case)
    if len(ours.dataset) < case.batch:
        raise DataError(f"{len(ours.dataset)} images make no batch of {case.batch}: give more images, or lower --batch")
    counts: dict[str, int] = {}
    found: dict[str, str] = {}

    def prepare(name: str) -> Pass:
        """A pass is the warm-up, files come from the disk's cache from then on."""
        if name == OURS:
            found[name] = f"pixels within {pixel_difference(ours, plain):.2f} grey levels"
        one_pass: Pass = ours if name == OURS else plain
        counts[name] = one_pass()
        return one_pass

    prepared, failures = prepare_each((OURS, PLAIN), prepare, progress)
    timer = make_timer("cpu")
    side = product_side or default_product_side("cpu")
    products = fast_products(side, torch.float32, "cpu", timer)
    machine = describe_machine("cpu", packages=(*PACKAGES, "pillow"))
    report = partial(progress, "timing")
    samples = interleave({**products, **prepared}, runs=runs, seconds=seconds, timer=timer, report=report)
    return RateReport(
        bench="data",
        subject=dataclasses.asdict(case) | {"data": case.data.root, **_describe(ours)},
        machine=machine,
        product=fastest_product(side, {name: samples[name] for name in products}),
        results=[
            RateResult(name, "pass", 0, note=failures[name].reason, is_wrong=failures[name].is_wrong)
            if name in failures
            else RateResult(name, "pass", 0, samples[name], num_images=counts[name], found=found.get(name, ""))
            for name in (OURS, PLAIN)
        ],
        peer=PLAIN,
    )


def _describe(ours: OurPass) -> dict[str, object]:
    height, width = np.median(ours.dataset.sizes, axis=0).tolist()
    return {"num_images": len(ours.dataset), "median_size": (round(height), round(width))}
