"""`aligncli bench model`: Table 6's speed column on your machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.bench import shared
from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.analysis.bench.model_report import ModelReport, ModelResult
    from aligncli.cli.render import Output

FULL_SIZE, QUICK_SIZE = (800, 1333), (400, 667)  # height and width in pixels
QUICK_RUNS = 2


Detectors = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE|RUN|torchvision:NAME...",
        help="Default: Table 6's six rows, and torchvision's RetinaNet and FCOS. "
        "NAME@bfloat16: one in a type of its own.",
    ),
]
Height = Annotated[
    int | None,
    typer.Option("--height", metavar="PX", min=1, max=shared.LARGEST_SIDE, help="Of the image. Default: 800."),
]
Width = Annotated[
    int | None,
    typer.Option("--width", metavar="PX", min=1, max=shared.LARGEST_SIDE, help="Of the image. Default: 1333."),
]
Quick = Annotated[bool, typer.Option("--quick", help="A look: 400x667, two samples of each, no memory.")]
Crowded = Annotated[
    bool, typer.Option("--crowded", help="Random weights: score so that post-processing has all it can have to do.")
]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw where the time goes.")]


def model(
    names: Detectors = None,
    *,
    height: Height = None,
    width: Width = None,
    batch: shared.Batch = 1,
    dtype: shared.Autocast = shared.AutocastType.float32,
    tf32: shared.TF32 = False,
    crowded: Crowded = False,
    channels_last: shared.ChannelsLast = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    runs: shared.Runs = 100,
    seconds: shared.Seconds = 90.0,
    quick: Quick = False,
    code: options.Code = None,
    plot: Plot = None,
    json: options.Json = False,
) -> None:
    """Time whole detectors, from images to boxes.

    Detectors take turns in one process. Beside the ratio to RetinaNet stands the paper's (Table 6). Recipes and
    torchvision's have random weights: with them post-processing has almost nothing to do, so name a RUN for
    trained ones, or see what --crowded costs. The defaults take about five minutes on two cores, --quick one.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    shared.check_picture(plot)
    full_height, full_width = QUICK_SIZE if quick else FULL_SIZE
    with output.waiting():  # torch takes seconds to import
        import torch

        from aligncli.analysis.bench.detectors import ModelCase, find_contender
        from aligncli.analysis.bench.machine import threads as limit_threads
        from aligncli.analysis.bench.model import bench_models, default_names

        device = shared.device_to_measure(device, tf32=tf32)
        options.read_code(code)  # its errors now, not as those of every contender
        contenders = [find_contender(name, code=code) for name in dict.fromkeys(names or default_names())]
        shared.check_types([dtype, *(contender.dtype for contender in contenders)], device)
    case = ModelCase(
        size=(height or full_height, width or full_width),
        batch=batch,
        dtype=dtype.value,
        device=device,
        crowded=crowded,
        channels_last=channels_last,
        tf32=tf32,
    )
    try:
        with limit_threads(threads), output.progress(waiting="building detectors") as reporter:
            report = bench_models(
                contenders,
                case,
                runs=min(runs, QUICK_RUNS) if quick else runs,
                seconds=seconds,
                with_memory=not quick,
                progress=lambda stage, done, total: reporter.stage(stage, done=done, total=total),
            )
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory on {device}: name fewer detectors, or lower --batch") from None
    _print(report, output)
    output.data(report.to_json())
    if plot is not None:
        from aligncli.analysis.bench.model_plot import plot_models

        shared.save_picture(plot, plot_models(report))
        output.line(f"picture: {plot}")
    if not all(result.samples for result in report.results):
        raise typer.Exit(1)


def _print(report: ModelReport, output: Output) -> None:
    subject, results = report.subject, report.results
    height, width = subject["size"]
    output.heading("detectors", f"{shared.count(subject['batch'], 'image')} of {height}x{width}, {report.precision}")
    output.fields(shared.common_conditions(report))
    output.table(
        ("from images to boxes", "ms", "quartiles", "ratio", "paper", "+ MB"),
        [time_row(report, result) for result in results],
    )
    output.table(
        ("ms by part", "input", "backbone", "neck", "heads", "post"),
        [part_row(result) for result in results if result.split],
    )
    output.table(
        ("size", "M weights", "GFLOP", "GFLOP/s", "of GEMM", "boxes"),
        [size_row(report, result) for result in results if result.samples],
    )
    for line in remarks(report):
        output.line(line)
    shared.show_if_busy(output, report)


def time_row(report: ModelReport, result: ModelResult) -> tuple[str, ...]:
    """Name, median and quartiles in ms, ratio to the peer, the paper's, extra MB."""
    if not result.samples:
        return (result.name, "wrong" if result.is_wrong else "not run", *["-"] * 4)
    seconds, ratio, paper = result.seconds, report.ratio_to_peer(result), report.paper_ratio(result)
    return (
        result.name,
        shared.milliseconds(seconds.median),
        shared.quartiles(seconds),
        shared.ratio(ratio),
        shared.ratio(paper),
        shared.megabytes(result.memory and result.memory.peak),
    )


def part_row(result: ModelResult) -> tuple[str, ...]:
    """Name and median ms of each part."""
    return (result.name, *map(shared.milliseconds, result.split.values()))


def size_row(report: ModelReport, result: ModelResult) -> tuple[str, ...]:
    """Name, millions of parameters, GFLOP of a call, GFLOP/s, share of the limit, detections an image."""
    return (
        result.name,
        f"{result.num_parameters / 1e6:.1f}",
        f"{result.flops / 1e9:,.1f}",
        f"{result.flops_per_second / 1e9:,.0f}",
        shared.share(report.share_of_product(result)),
        f"{result.num_detections:.0f}",
    )


def remarks(report: ModelReport) -> list[str]:
    """What the numbers do not say by themselves."""
    paper, peer, lines = report.paper, report.peer, []
    lines.append(f"ratio: of medians, to {peer}")
    if peer in paper.milliseconds:
        lines[0] += f"; paper: {paper.table}, {paper.gpu}, where it takes {paper.milliseconds[peer]:.0f} ms"
    lines += [f"{result.name}: {text}" for result in report.results for text in (result.note, result.remark) if text]
    random = [result for result in report.results if result.random_weights and result.samples]
    if random and not report.subject["crowded"]:
        found = sum(result.num_detections for result in random) / len(random)
        lines.append(
            f"random weights: {found:.3g} detections an image, so post-processing had almost nothing to do; "
            "name a RUN for trained weights, or add --crowded for the most there can be"
        )
    elif random:
        lines.append("crowded: every level had all the candidates it may have, more than trained weights give")
    return lines
