"""`aligncli bench train`: optimizer steps of detectors in turns, and the memory of each in a process of its own.

A fresh process for every detector: what one has left behind, compiled code above all, is not counted against
the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from aligncli.analysis.bench.detectors import Contender
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
from aligncli.analysis.bench.steps import Step, TrainCase, build_call, build_step
from aligncli.analysis.bench.timing import interleave
from aligncli.analysis.bench.train_report import TrainReport, TrainResult
from aligncli.analysis.bench.work import Work, watch_work
from aligncli.analysis.complexity import count_parameters

PEER = "torchvision:retinanet_resnet50_fpn"
DEFAULT_NAMES = ("retinanet_r50_torchvision", PEER)  # the same architecture
MORE_WARM_UP_STEPS = {"cpu": 0, "cuda": 2}  # after the first one


@dataclass(frozen=True)
class Prepared:
    """A training that took a step, now warm."""

    step: Step
    work: Work


def bench_training(
    contenders: Sequence[Contender],
    case: TrainCase,
    *,
    runs: int,
    seconds: float,
    with_memory: bool = True,
    product_side: int | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> TrainReport:
    """Time and weigh training steps on `case`, with torch's number of threads.

    runs: samples of each; fewer where all together would take more than `seconds`. product_side: of the square
    product that tells the machine's rate. A contender that fails is not timed, and its result says why.
    """
    side = product_side or default_product_side(case.device)
    timer = make_timer(case.device)
    by_name = {contender.name: contender for contender in contenders}
    with equal_settings(tf32=case.tf32):
        prepared, failures = prepare_each(by_name, lambda name: _prepare(by_name[name], case), progress)
        machine = describe_machine(case.device)
        bandwidth = copy_bandwidth(case.device, timer)
        products = fast_products(side, getattr(torch, case.dtype), case.device, timer)
        steps = {name: training.step for name, training in prepared.items()}
        report = partial(progress, "timing")
        samples = interleave({**products, **steps}, runs=runs, seconds=seconds, timer=timer, report=report)
        timed = [contender for contender in contenders if contender.name in prepared]
        memory = _measure_memory(timed, case, progress) if with_memory else {}

    def result(name: str) -> TrainResult:
        if name in failures:
            return TrainResult(name, "step", 0, note=failures[name].reason, is_wrong=failures[name].is_wrong)
        parameters = count_parameters(prepared[name].step.model)
        return TrainResult(
            name,
            "step",
            prepared[name].work.flops,
            samples[name],
            memory.get(name),
            traffic=prepared[name].work.traffic,
            num_images=case.batch,
            num_parameters=parameters.total,
            num_trained=parameters.trainable,
            remark=prepared[name].step.remark,
            dtype=by_name[name].dtype,
        )

    return TrainReport(
        bench="train",
        subject=dataclasses.asdict(case),
        machine=machine,
        product=fastest_product(side, {name: samples[name] for name in products}),
        results=[result(name) for name in by_name],
        peer=PEER if PEER in prepared else next(iter(prepared), next(iter(by_name))),
        bandwidth=bandwidth,
    )


def _prepare(contender: Contender, case: TrainCase) -> Prepared:
    """Build a training, and step until it is warm. Raises WrongAnswerError where a loss is no number."""
    step = build_step(contender, case)
    work, losses = watch_work(step)
    broken = [name for name, loss in losses.items() if not loss.isfinite()]
    if broken:
        raise WrongAnswerError(f"{broken[0]} is not finite")
    for _ in range(MORE_WARM_UP_STEPS[torch.device(case.device).type]):
        step()
    return Prepared(step, work)


def _measure_memory(
    contenders: Sequence[Contender], case: TrainCase, progress: Progress
) -> dict[str, MemoryUse | None]:
    used: dict[str, MemoryUse | None] = {}
    for done, contender in enumerate(contenders, start=1):
        with MemoryMeter(device=case.device, num_threads=torch.get_num_threads()) as meter:
            build, warm_up = (partial(build_call, contender, size) for size in (case, case.small()))
            used[contender.name] = meter.measure(build, warm_up)
        progress("memory", done, len(contenders))
    return used
