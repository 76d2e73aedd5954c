"""`aligncli bench train`: a training step, its time and its memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.bench import growth, shared
from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.analysis.bench.train_report import TrainReport, TrainResult
    from aligncli.cli.render import Output

FULL_SIZE, QUICK_SIZE = "512x512", "128x128"
QUICK_RUNS = 2

Detectors = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE|RUN|torchvision:NAME...",
        help="Default: RetinaNet with ResNet-50, ours and torchvision's. NAME@bfloat16: one in a type of its own.",
    ),
]
Size = Annotated[str | None, typer.Option("--size", metavar="HxW", help="Of the images, in pixels. Default: 512x512.")]
Objects = Annotated[int, typer.Option("--objects", metavar="N", min=0, max=100_000, help="Ground truths an image.")]
Classes = Annotated[int, typer.Option("--classes", metavar="N", min=1, max=100_000, help="Of the detectors.")]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="WHAT[=N,N...]",
        help="How a step grows with size, batch, objects or classes; repeatable, all else stays as it is.",
    ),
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw bars and a roofline; with --vary, the growth.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A look: 128x128, two samples of each, no memory.")]


def train(
    names: Detectors = None,
    *,
    size: Size = None,
    batch: shared.Batch = 2,
    objects: Objects = 7,
    classes: Classes = 80,
    dtype: shared.Autocast = shared.AutocastType.float32,
    tf32: shared.TF32 = False,
    channels_last: shared.ChannelsLast = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    runs: shared.Runs = 11,
    seconds: shared.Seconds = 90.0,
    quick: Quick = False,
    code: options.Code = None,
    vary: Vary = None,
    plot: Plot = None,
    json: options.Json = False,
) -> None:
    """Time training steps, from images and boxes to changed weights, and weigh them.

    Detectors take turns in one process; then each trains in a process of its own, which tells its peak memory.
    Weights are random, and the learning rate is next to nothing, so that all steps of a detector compute the same.
    The defaults take about three minutes on two cores, --quick half a minute; --vary as much for every value.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    image_size = shared.parse_size(size or (QUICK_SIZE if quick else FULL_SIZE))
    shared.check_picture(plot)
    with output.waiting():  # torch takes seconds to import
        import torch

        from aligncli.analysis.bench.detectors import find_contender
        from aligncli.analysis.bench.growth import measure_growth, parse_sweep
        from aligncli.analysis.bench.machine import threads as limit_threads
        from aligncli.analysis.bench.steps import TrainCase
        from aligncli.analysis.bench.train import DEFAULT_NAMES, bench_training

        device = shared.device_to_measure(device, tf32=tf32)
        options.read_code(code)  # its errors now, not as those of every contender
        contenders = [find_contender(name, code=code) for name in dict.fromkeys(names or DEFAULT_NAMES)]
        shared.check_types([dtype, *(contender.dtype for contender in contenders)], device)
    case = TrainCase(
        size=image_size,
        batch=batch,
        num_objects=objects,
        num_classes=classes,
        dtype=dtype.value,
        device=device,
        channels_last=channels_last,
        tf32=tf32,
    )
    sweeps = [parse_sweep(text) for text in vary or ()]
    with limit_threads(threads), output.progress(waiting="building detectors") as reporter:

        def measure(case: TrainCase, label: str = "") -> TrainReport:
            return bench_training(
                contenders,
                case,
                runs=min(runs, QUICK_RUNS) if quick else runs,
                seconds=seconds,
                with_memory=not quick,
                progress=lambda stage, done, total: reporter.stage(f"{label}{stage}", done=done, total=total),
            )

        try:
            grown = [measure_growth(case, sweep, measure) for sweep in sweeps]
            reports = [report for sweep in grown for report in sweep.reports] or [measure(case)]
        except torch.OutOfMemoryError:
            raise UserError(f"out of memory on {device}: name fewer detectors, or lower --batch or --size") from None
    if grown:
        growth.show(grown, reports, output, plot)
    else:
        _print(reports[0], output)
        output.data(reports[0].to_json())
        shared.draw(reports[0], output, plot)
    if not all(result.samples for report in reports for result in report.results):
        raise typer.Exit(1)


def _print(report: TrainReport, output: Output) -> None:
    output.heading("training steps", describe(report))
    output.fields(shared.common_conditions(report))
    output.table(
        ("one step", "ms", "quartiles", "images/s", "ratio", "peak MB", "ratio"),
        [step_row(report, result) for result in report.results],
    )
    output.table(
        ("size", "M weights", "M trained", "held MB", "GFLOP", "GFLOP/s", "of GEMM"),
        [size_row(report, result) for result in report.results if result.samples],
    )
    output.line(f"ratio: of medians, and of peak memory, to {report.peer}")
    output.line("held: between steps, of peak: weights, gradients, optimizer state")
    for result in report.results:
        for text in filter(None, (result.note, result.remark)):
            output.line(f"{result.name}: {text}")
    shared.show_if_busy(output, report)


def describe(report: TrainReport) -> str:
    """What a step is given, in one line."""
    subject = report.subject
    images = f"{shared.count(subject['batch'], 'image')} of {'x'.join(map(str, subject['size']))}, {report.precision}"
    return f"{images}; {shared.count(subject['num_objects'], 'object')} an image, {subject['num_classes']} classes"


def step_row(report: TrainReport, result: TrainResult) -> tuple[str, ...]:
    """Name, median and quartiles in ms, images a second, ratio to the peer, peak MB and their ratio."""
    if not result.samples:
        return (result.name, "wrong" if result.is_wrong else "not run", *["-"] * 5)
    return (
        result.name,
        shared.milliseconds(result.seconds.median),
        shared.quartiles(result.seconds),
        f"{result.images_per_second:.3g}",
        shared.ratio(report.ratio_to_peer(result)),
        shared.megabytes(result.peak_memory),
        shared.ratio(report.memory_ratio(result)),
    )


def size_row(report: TrainReport, result: TrainResult) -> tuple[str, ...]:
    """Name, millions of parameters, of them trained, MB between steps, GFLOP of a step, GFLOP/s, share of the limit."""
    return (
        result.name,
        f"{result.num_parameters / 1e6:.1f}",
        f"{result.num_trained / 1e6:.1f}",
        shared.megabytes(result.memory and result.memory.kept),
        f"{result.flops / 1e9:,.1f}",
        f"{result.flops_per_second / 1e9:,.0f}",
        shared.share(report.share_of_product(result)),
    )
