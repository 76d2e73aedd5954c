"""`aligncli bench model`: whole detectors from images to boxes, as in the speed column of Table 6.

Three sorts of calls, so that none disturbs another: samples of bare calls, in turns, tell the time; calls with
hooks, in turns as well, split it into parts; and on the CPU, calls in a process of their own tell the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from aligncli.analysis.bench.anatomy import SplitTimer, dissect, make_clock
from aligncli.analysis.bench.detectors import (
    Contender,
    Inference,
    ModelCase,
    build_call,
    build_inference,
    count_inference_flops,
    watched_call,
)
from aligncli.analysis.bench.failures import WrongAnswerError, prepare_each
from aligncli.analysis.bench.fairness import (
    Progress,
    copy_bandwidth,
    equal_settings,
    fast_products,
    fastest_product,
    make_timer,
)
from aligncli.analysis.bench.fairness import product_side as default_product_side
from aligncli.analysis.bench.machine import describe_machine
from aligncli.analysis.bench.memory import MemoryMeter, MemoryUse
from aligncli.analysis.bench.model_report import ModelReport, ModelResult
from aligncli.analysis.bench.table6 import RETINANET, paper_speeds
from aligncli.analysis.bench.timing import interleave
from aligncli.analysis.bench.work import watch_work
from aligncli.analysis.complexity import count_parameters

MORE_WARM_UP_CALLS = {"cpu": 0, "cuda": 2}  # after the first one
SPLIT_SHARE = 3  # one call with hooks for so many without
TORCHVISION_PEERS = ("torchvision:retinanet_resnet50_fpn", "torchvision:fcos_resnet50_fpn")


def default_names() -> list[str]:
    """Table 6's rows in its order, RetinaNet last, and torchvision's one-stage detectors."""
    return [*paper_speeds().milliseconds, *TORCHVISION_PEERS]


@dataclass(frozen=True)
class Prepared:
    """A detector that ran, now warm."""

    inference: Inference
    flops: int
    traffic: int
    num_detections: float


def bench_models(
    contenders: Sequence[Contender],
    case: ModelCase,
    *,
    runs: int,
    seconds: float,
    with_memory: bool = True,
    product_side: int | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> ModelReport:
    """Time, split and weigh detectors on `case`, with torch's number of threads.

    runs: samples of each, the paper takes 100; fewer where all together would take more than `seconds`.
    product_side: of the square product that tells the machine's rate. A contender that fails is not timed, and
    its result says why.
    """
    side = product_side or default_product_side(case.device)
    timer = make_timer(case.device)
    with equal_settings(tf32=case.tf32):
        by_name = {contender.name: contender for contender in contenders}
        prepared, failures = prepare_each(by_name, lambda name: _prepare(by_name[name], case), progress)
        machine = describe_machine(case.device)
        bandwidth = copy_bandwidth(case.device, timer)
        products = fast_products(side, getattr(torch, case.dtype), case.device, timer)
        calls = {name: detector.inference for name, detector in prepared.items()}
        report = partial(progress, "timing")
        samples = interleave({**products, **calls}, runs=runs, seconds=seconds, timer=timer, report=report)
        most = max((len(samples[name]) for name in calls), default=0)
        splits = _split(calls, case, runs=-(-most // SPLIT_SHARE), seconds=seconds / SPLIT_SHARE, progress=progress)
        timed = [contender for contender in contenders if contender.name in prepared]
        memory = _measure_memory(timed, case, progress) if with_memory else {}

    def result(contender: Contender) -> ModelResult:
        name = contender.name
        if name in failures:
            reason, is_wrong = failures[name].reason, failures[name].is_wrong
            return ModelResult(name, "inference", 0, note=reason, is_wrong=is_wrong)
        detector = prepared[name]
        return ModelResult(
            name,
            "inference",
            detector.flops,
            samples[name],
            memory.get(name),
            traffic=detector.traffic,
            splits=splits.get(name, ()),
            num_parameters=count_parameters(detector.inference.model).total,
            num_detections=detector.num_detections,
            random_weights=contender.has_random_weights,
            dtype=contender.dtype,
            remark=detector.inference.remark,
        )

    return ModelReport(
        bench="model",
        subject=dataclasses.asdict(case),
        machine=machine,
        product=fastest_product(side, {name: samples[name] for name in products}),
        results=[result(contender) for contender in contenders],
        peer=choose_peer(contenders, failures),
        paper=paper_speeds(),
        bandwidth=bandwidth,
    )


def choose_peer(contenders: Sequence[Contender], failures: Mapping[str, object]) -> str:
    """The paper's RetinaNet, else the first RetinaNet, else the first contender, of those that ran."""
    ran = [contender for contender in contenders if contender.name not in failures] or list(contenders)
    ranked = sorted(ran, key=lambda contender: (contender.name != RETINANET, not contender.is_retinanet))
    return ranked[0].name


def _prepare(contender: Contender, case: ModelCase) -> Prepared:
    """Build a detector, and call it until it is warm. Raises WrongAnswerError where it overflows."""
    inference = build_inference(contender, case)
    work, (detections, layer) = watch_work(partial(watched_call, inference))
    if layer:
        raise WrongAnswerError(f"the outputs of its layer {layer} are not finite")
    for _ in range(MORE_WARM_UP_CALLS[torch.device(case.device).type]):
        inference()
    flops = count_inference_flops(inference)
    return Prepared(inference, flops, work.traffic, sum(len(found["boxes"]) for found in detections) / case.batch)


def _split(
    calls: Mapping[str, Inference], case: ModelCase, *, runs: int, seconds: float, progress: Progress
) -> dict[str, list[dict[str, float]]]:
    """Seconds by part, a dict a call, of the detectors whose parts are known."""
    clock = make_clock(case.device)
    timers = {
        name: SplitTimer(inference, anatomy.boundaries, clock)
        for name, inference in calls.items()
        if (anatomy := dissect(inference.model)) is not None
    }
    if timers:
        interleave(
            timers,
            runs=runs,
            seconds=seconds,
            timer=make_timer(case.device),
            report=partial(progress, "splitting"),
        )
    return {name: timer.splits for name, timer in timers.items()}


def _measure_memory(contenders: Sequence[Contender], case: ModelCase, progress: Progress) -> dict[str, Any]:
    used: dict[str, MemoryUse | None] = {}
    with MemoryMeter(device=case.device, num_threads=torch.get_num_threads()) as meter:
        for done, contender in enumerate(contenders, start=1):
            build, warm_up = (partial(build_call, contender, size) for size in (case, case.small()))
            used[contender.name] = meter.measure(build, warm_up)
            progress("memory", done, len(contenders))
    return used
