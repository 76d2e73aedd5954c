"""`aligncli bench op`: RoIConv against the convolution that bounds it and the operators that it replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from aligncli.analysis.bench.agreement import Referee
from aligncli.analysis.bench.contenders import OURS, Call, Contender, build_call, make_contender, prepare
from aligncli.analysis.bench.failures import Failure
from aligncli.analysis.bench.fairness import (
    Progress,
    copy_bandwidth,
    equal_settings,
    fast_products,
    fastest_product,
    make_timer,
)
from aligncli.analysis.bench.fairness import product_side as default_product_side
from aligncli.analysis.bench.layer import DIRECTIONS, Direction, Operands, OperatorCase, make_operands
from aligncli.analysis.bench.machine import describe_machine
from aligncli.analysis.bench.memory import MemoryMeter, MemoryUse
from aligncli.analysis.bench.report import Report, Result
from aligncli.analysis.bench.timing import interleave
from aligncli.analysis.bench.work import Work, watch_work
from aligncli.errors import UserError
from aligncli.ops import choose_backend

Key = tuple[str, Direction]  # contender, direction


def bench_operator(
    case: OperatorCase,
    names: Sequence[str],
    *,
    directions: Sequence[Direction] = DIRECTIONS,
    runs: int,
    seconds: float,
    product_side: int | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Report:
    """Check, time and weigh the contenders `names` (see contenders.py) on `case`, with torch's number of threads.

    runs: samples of each; slow ones get fewer where all together would take more than `seconds`.
    product_side: of the square product that tells the machine's rate. A contender that this machine cannot run,
    or that disagrees with the reference, is not timed, and its results say why.
    """
    side = product_side or default_product_side(case.device)
    operands = make_operands(case)
    with equal_settings(tf32=case.tf32):
        contenders, failures = _check(names, case, operands, progress)
        calls: dict[Key, Call] = {
            (name, direction): prepare(contender, direction, operands)
            for direction in directions
            for name, contender in contenders.items()
        }
        work = _watch(calls, progress)
        timer = make_timer(case.device)
        products = fast_products(side, getattr(torch, case.dtype), case.device, timer)
        machine = describe_machine(case.device)
        bandwidth = copy_bandwidth(case.device, timer)
        timed: dict[Key | str, Callable[[], object]] = {**products, **calls}
        report = partial(progress, "timing")
        samples = interleave(timed, runs=runs, seconds=seconds, timer=timer, report=report)
        memory = _measure_memory(list(calls), case, progress)

    keys: list[Key] = [(name, direction) for direction in directions for name in names]
    return Report(
        bench="op",
        subject=_describe(case),
        machine=machine,
        product=fastest_product(side, {name: samples[name] for name in products}),
        results=[
            _refused(key, case, failures[key[0]])
            if key[0] in failures
            else Result(*key, work[key].flops, samples[key], memory[key], traffic=work[key].traffic)
            for key in keys
        ],
        peer="conv2d",
        bandwidth=bandwidth,
    )


def _refused(key: Key, case: OperatorCase, failure: Failure) -> Result:
    return Result(*key, case.flops(key[1]), note=failure.reason, is_wrong=failure.is_wrong)


def _check(
    names: Sequence[str], case: OperatorCase, operands: Operands, progress: Progress
) -> tuple[dict[str, Contender], dict[str, Failure]]:
    """Contenders that are right, now warm, and the others."""
    referee = Referee(case, operands)
    contenders: dict[str, Contender] = {}
    failures: dict[str, Failure] = {}
    for done, name in enumerate(names, start=1):
        if reason := _why_not_here(name, case):
            failures[name] = Failure(reason)
        else:
            contender = make_contender(name, case, operands)
            if failure := referee.find_failure(contender):
                failures[name] = failure
            else:
                contenders[name] = contender
        progress("checking", done, len(names))
    return contenders, failures


def _watch(calls: Mapping[Key, Call], progress: Progress) -> dict[Key, Work]:
    work: dict[Key, Work] = {}
    for done, (key, call) in enumerate(calls.items(), start=1):
        work[key] = watch_work(call)[0]
        progress("counting", done, len(calls))
    return work


def _why_not_here(name: str, case: OperatorCase) -> str | None:
    """Why this machine cannot run a contender in this type, found by trying; None if it can."""
    try:
        if name.startswith(OURS):
            asked = name.removeprefix(OURS)
            dtype = getattr(torch, case.dtype)
            chosen = choose_backend(asked, device=case.device, dtype=dtype, out_channels=case.out_channels)
            if chosen.name != asked:
                return chosen.reason
        build_call(name, "forward+backward", case.small())()
    except UserError as error:
        return str(error)
    except RuntimeError as error:
        if "not implemented for" not in str(error):
            raise
        owner = "aligncli" if name.startswith(OURS) else "torchvision"
        return f"{owner} has no {case.dtype} on {case.device}"
    return None


def _measure_memory(keys: Sequence[Key], case: OperatorCase, progress: Progress) -> dict[Key, MemoryUse | None]:
    used: dict[Key, MemoryUse | None] = {}
    with MemoryMeter(device=case.device, num_threads=torch.get_num_threads()) as meter:
        for done, (name, direction) in enumerate(keys, start=1):
            build, warm_up = (partial(build_call, name, direction, size) for size in (case, case.small()))
            used[name, direction] = meter.measure(build, warm_up)
            progress("memory", done, len(keys))
    return used


def _describe(case: OperatorCase) -> dict[str, Any]:
    levels = zip(case.levels, case.shapes, case.strides)
    return dataclasses.asdict(case) | {
        "levels": [{"name": name, "height": h, "width": w, "stride": stride} for name, (h, w), stride in levels],
        "rows": case.num_rows,
    }
