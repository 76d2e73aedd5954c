"""`aligncli bench op`: the operator alone."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.bench import shared
from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.analysis.bench.report import Report, Result
    from aligncli.cli.render import Output

TITLES = {"roi_align": "RoIAlign + linear"}


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


class Boxes(StrEnum):
    refined = "refined"
    implicit = "implicit"


Levels = Annotated[str, typer.Option("--levels", metavar="P3,P4,...", help="Pyramid levels, p2 to p7; all is p3-p7.")]
Kernel = Annotated[int, typer.Option("--kernel", metavar="K", min=1, max=31, help="Side of the kernel, odd.")]
InChannels = Annotated[int, typer.Option("--in-channels", metavar="C", min=1, max=8192, help="Channels of the maps.")]
OutChannels = Annotated[int, typer.Option("--out-channels", metavar="O", min=1, max=8192, help="Output channels.")]
DtypeChoice = Annotated[Dtype, typer.Option("--dtype", help="Of features, weight and outputs.")]
BoxesChoice = Annotated[
    Boxes,
    typer.Option("--boxes", help="Random refined anchors, or the boxes on which RoIConv is a plain convolution."),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAMES",
        help="Of ours: native, fused, portable, reference; all is what is fast on --device.",
    ),
]
Peers = Annotated[
    str, typer.Option("--peers", metavar="NAMES", help="Others: conv2d, deform_conv2d, roi_align; all; none.")
]
ForwardOnly = Annotated[bool, typer.Option("--forward-only", help="Leave out forward + backward.")]


def op(
    *,
    levels: Levels = "all",
    size: shared.Size = "800x1333",
    kernel: Kernel = 3,
    in_channels: InChannels = 256,
    out_channels: OutChannels = 256,
    dtype: DtypeChoice = Dtype.float32,
    tf32: shared.TF32 = False,
    batch: shared.Batch = 1,
    boxes: BoxesChoice = Boxes.refined,
    backend: Backend = "all",
    peers: Peers = "all",
    forward_only: ForwardOnly = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    runs: shared.Runs = 11,
    seconds: shared.Seconds = 25.0,
    plot: shared.Plot = None,
    json: options.Json = False,
) -> None:
    """Time RoIConv against what it replaces.

    Contenders take turns in one process, after each was checked against the reference: RoIConv by every
    backend, all levels in one call; conv2d, whose time is the limit; torchvision's deform_conv2d on the same
    taps; RoIAlign and a linear layer. The defaults take a minute or two on two cores, most of it for the
    slow peers: --peers conv2d leaves them out.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    image_size = shared.parse_size(size)
    shared.check_picture(plot)
    if kernel % 2 == 0:
        raise UserError(f"--kernel {kernel} must be odd: an even convolution is not centred on its cell")
    with output.waiting():  # torch takes seconds to import
        import torch

        from aligncli.analysis.bench.layer import DIRECTIONS, LEVELS, STRIDES, OperatorCase
        from aligncli.analysis.bench.machine import threads as limit_threads
        from aligncli.analysis.bench.op import bench_operator

        device = shared.device_to_measure(device, tf32=tf32)
    names = pick_contenders(peers, backend, device=device)
    case = OperatorCase(
        levels=shared.parse_names("--levels", levels, tuple(STRIDES), all_of=LEVELS),
        size=image_size,
        kernel_size=kernel,
        in_channels=in_channels,
        out_channels=out_channels,
        dtype=dtype.value,
        batch=batch,
        boxes=boxes.value,
        device=device,
        tf32=tf32,
    )
    try:
        with limit_threads(threads), output.progress(waiting="checking every contender") as reporter:
            report = bench_operator(
                case,
                names,
                directions=DIRECTIONS[:1] if forward_only else DIRECTIONS,
                runs=runs,
                seconds=seconds,
                progress=lambda stage, done, total: reporter.stage(stage, done=done, total=total),
            )
    except torch.OutOfMemoryError:
        raise UserError(
            f"out of memory on {device}: lower --batch, or leave out --peers deform_conv2d,roi_align"
        ) from None
    _print(report, output)
    output.data(report.to_json())
    shared.draw(report, output, plot, title=title)
    if any(result.is_wrong for result in report.results):
        raise typer.Exit(1)


def pick_contenders(peers: str, backend: str, *, device: str) -> list[str]:
    """Names of contenders, in the order of the table: the limit, ours, the others. Raises UserError."""
    from aligncli.analysis.bench.contenders import OURS, PEERS
    from aligncli.ops.backend import BACKENDS, ENVIRONMENT_VARIABLE, requested_backend

    forced = requested_backend("auto")
    if forced != "auto":
        raise UserError(f"{ENVIRONMENT_VARIABLE}={forced} would replace every backend: unset it, and use --backend")
    # Fused is for CUDA: a table of the CPU would say so every time.
    fast = [name for name in BACKENDS if name != "reference" and (name != "fused" or device != "cpu")]
    ours = [OURS + name for name in shared.parse_names("--backend", backend, BACKENDS, all_of=fast)]
    others = shared.parse_names("--peers", peers, PEERS, all_of=PEERS, or_none=True)
    first = [name for name in others if name == "conv2d"]
    return [*first, *ours, *(name for name in others if name not in first)]


def _print(report: Report, output: Output) -> None:
    output.heading("RoIConv", describe_layer(report))
    output.fields(describe_conditions(report))
    for part, results in report.parts().items():
        output.table(
            (part, "ms", "quartiles", "GFLOP/s", "of GEMM", "+ MB", "/ conv2d"),
            [table_row(report, result) for result in results],
        )
    for name, note in {result.name: result.note for result in report.results if result.note}.items():
        output.line(f"{title(name)}: {note}")
    shared.show_if_busy(output, report)


def title(name: str) -> str:
    """A contender's name in the table."""
    if name.startswith("roi_conv:"):
        return f"RoIConv {name.removeprefix('roi_conv:')}"
    return TITLES.get(name, name)


def describe_layer(report: Report) -> str:
    """The layer in one line."""
    subject = report.subject
    kernel, boxes = subject["kernel_size"], subject["boxes"]
    channels = f"{subject['in_channels']} to {subject['out_channels']} channels"
    return f"{kernel}x{kernel}, {channels}, {report.precision}, {boxes} boxes"


def describe_conditions(report: Report) -> dict[str, str]:
    """What the numbers depend on besides the layer."""
    subject = report.subject
    levels = " ".join(level["name"] for level in subject["levels"])
    images = f"{shared.count(subject['batch'], 'image')} of {'x'.join(map(str, subject['size']))}"
    return {"maps": f"{levels} of {images}, {subject['rows']:,} locations", **shared.common_conditions(report)}


def table_row(report: Report, result: Result) -> tuple[str, ...]:
    """Name, median and quartiles in ms, GFLOP/s, share of the limit, extra MB, ratio to conv2d, samples."""
    if not result.samples:
        return (title(result.name), "wrong" if result.is_wrong else "not run", *["-"] * 5)
    seconds, ratio = result.seconds, report.ratio_to_peer(result)
    return (
        title(result.name),
        shared.milliseconds(seconds.median),
        shared.quartiles(seconds),
        f"{result.flops_per_second / 1e9:,.0f}",
        shared.share(report.share_of_product(result)),
        shared.megabytes(result.memory and result.memory.peak),
        shared.ratio(ratio),
    )
