"""`aligncli bench`: interleaved measurements; `op` is the operator alone."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligncli.cli import options
from aligncli.errors import DeviceError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aligncli.analysis.bench.report import Report, Result
    from aligncli.cli.render import Output

TITLES = {"roi_align": "RoIAlign + linear"}
LARGEST_SIDE = 8192  # pixels
QUIET = 0.85  # share of the processor below which something else was running


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


class Boxes(StrEnum):
    refined = "refined"
    implicit = "implicit"


Levels = Annotated[str, typer.Option("--levels", metavar="P3,P4,...", help="Pyramid levels, p2 to p7; all is p3-p7.")]
Size = Annotated[str, typer.Option("--size", metavar="HxW", help="Image, in pixels; padded to multiples of 32.")]
Kernel = Annotated[int, typer.Option("--kernel", metavar="K", min=1, max=31, help="Side of the kernel, odd.")]
InChannels = Annotated[int, typer.Option("--in-channels", metavar="C", min=1, max=8192, help="Channels of the maps.")]
OutChannels = Annotated[int, typer.Option("--out-channels", metavar="O", min=1, max=8192, help="Output channels.")]
DtypeChoice = Annotated[Dtype, typer.Option("--dtype", help="Of features, weight and outputs.")]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, max=1024, help="Images.")]
BoxesChoice = Annotated[
    Boxes,
    typer.Option("--boxes", help="Random refined anchors, or the boxes on which RoIConv is a plain convolution."),
]
Backend = Annotated[
    str,
    typer.Option("--backend", metavar="NAMES", help="Of ours: native, portable, reference; all leaves out the last."),
]
Peers = Annotated[
    str, typer.Option("--peers", metavar="NAMES", help="Others: conv2d, deform_conv2d, roi_align; all; none.")
]
ForwardOnly = Annotated[bool, typer.Option("--forward-only", help="Leave out forward + backward.")]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="CPU threads. Default: torch's.")
]
Runs = Annotated[int, typer.Option("--runs", metavar="N", min=1, max=10_000, help="Samples of each, at most.")]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds", metavar="S", min=0.0, help="Time for all samples: the slow get fewer of them, but at least 3."
    ),
]


def op(
    *,
    levels: Levels = "all",
    size: Size = "800x1333",
    kernel: Kernel = 3,
    in_channels: InChannels = 256,
    out_channels: OutChannels = 256,
    dtype: DtypeChoice = Dtype.float32,
    batch: Batch = 1,
    boxes: BoxesChoice = Boxes.refined,
    backend: Backend = "all",
    peers: Peers = "all",
    forward_only: ForwardOnly = False,
    device: options.Device = "auto",
    threads: Threads = None,
    runs: Runs = 11,
    seconds: Seconds = 25.0,
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
    image_size = parse_size(size)
    if kernel % 2 == 0:
        raise UserError(f"--kernel {kernel} must be odd: an even convolution is not centred on its cell")
    with output.waiting():  # torch takes seconds to import
        import torch

        from aligncli.analysis.bench.layer import DIRECTIONS, LEVELS, STRIDES, OperatorCase
        from aligncli.analysis.bench.machine import threads as limit_threads
        from aligncli.analysis.bench.op import bench_operator
        from aligncli.engine.inference import check_device

        device = options.pick_device(device)
        check_device(device)
    if torch.device(device).type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {device} is not measured: take cpu or cuda")
    names = pick_contenders(peers, backend)
    case = OperatorCase(
        levels=parse_names("--levels", levels, tuple(STRIDES), all_of=LEVELS),
        size=image_size,
        kernel_size=kernel,
        in_channels=in_channels,
        out_channels=out_channels,
        dtype=dtype.value,
        batch=batch,
        boxes=boxes.value,
        device=device,
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
    if any(result.is_wrong for result in report.results):
        raise typer.Exit(1)


def pick_contenders(peers: str, backend: str) -> list[str]:
    """Names of contenders, in the order of the table: the limit, ours, the others. Raises UserError."""
    from aligncli.analysis.bench.contenders import OURS, PEERS
    from aligncli.ops.backend import BACKENDS, ENVIRONMENT_VARIABLE, requested_backend

    forced = requested_backend("auto")
    if forced != "auto":
        raise UserError(f"{ENVIRONMENT_VARIABLE}={forced} would replace every backend: unset it, and use --backend")
    fast = [name for name in BACKENDS if name != "reference"]
    ours = [OURS + name for name in parse_names("--backend", backend, BACKENDS, all_of=fast)]
    others = parse_names("--peers", peers, PEERS, all_of=PEERS, or_none=True)
    first = [name for name in others if name == "conv2d"]
    return [*first, *ours, *(name for name in others if name not in first)]


def parse_names(
    option: str, text: str, known: Sequence[str], *, all_of: Sequence[str], or_none: bool = False
) -> tuple[str, ...]:
    """A comma-separated list in the order of `known`, or all, or none where that is allowed. Raises UserError."""
    words = ["all", "none"] if or_none else ["all"]
    given = [name.strip().lower() for name in text.split(",")]
    if given == ["all"]:
        return tuple(all_of)
    if given == ["none"] and or_none:
        return ()
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"{option} {unknown[0]!r} is unknown: choose from {', '.join(known)}, or {' or '.join(words)}")
    return tuple(name for name in known if name in given)


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of `800x1333`. Raises UserError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise UserError(
            f"--size {text!r} must be height x width in pixels, such as 800x1333, up to {LARGEST_SIDE} each"
        )
    return size


def _print(report: Report, output: Output) -> None:
    output.heading("RoIConv", describe_layer(report.subject))
    output.fields(describe_conditions(report))
    for part, results in report.parts().items():
        output.table(
            (part, "ms", "quartiles", "GFLOP/s", "of GEMM", "+ MB", "/ conv2d"),
            [table_row(report, result) for result in results],
        )
    for name, note in {result.name: result.note for result in report.results if result.note}.items():
        output.line(f"{title(name)}: {note}")
    share = report.share_of_processor()
    if report.machine.device == "cpu" and share < QUIET:
        output.note(f"the machine was busy: the matrix product got {share:.0%} of its threads, so times are too long")


def title(name: str) -> str:
    """A contender's name in the table."""
    if name.startswith("roi_conv:"):
        return f"RoIConv {name.removeprefix('roi_conv:')}"
    return TITLES.get(name, name)


def describe_layer(subject: Mapping[str, Any]) -> str:
    """The layer in one line."""
    kernel, boxes = subject["kernel_size"], subject["boxes"]
    channels = f"{subject['in_channels']} to {subject['out_channels']} channels"
    return f"{kernel}x{kernel}, {channels}, {subject['dtype']}, {boxes} boxes"


def describe_conditions(report: Report) -> dict[str, str]:
    """What the numbers depend on besides the layer."""
    subject, machine, product = report.subject, report.machine, report.product
    levels = " ".join(level["name"] for level in subject["levels"])
    counts = [len(result.samples) for result in report.results if result.samples]
    processor = f"{machine.processor}, {machine.instructions}, {_count(machine.num_cores, 'core')}"
    return {
        "maps": f"{levels} of {_count(subject['batch'], 'image')} of {'x'.join(map(str, subject['size']))}, "
        f"{subject['rows']:,} locations",
        "machine": f"{processor}, {_count(machine.num_threads, 'thread')}"
        + ("" if machine.device == "cpu" else f"; {machine.device}"),
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "GEMM": f"{product.flops_per_second / 1e9:,.0f} GFLOP/s, {product.name}: the machine's limit",
        "samples": f"{_range(counts)} of each, in turns; median and quartiles",
    }


def _range(counts: Sequence[int]) -> str:
    fewest, most = min(counts, default=0), max(counts, default=0)
    return str(most) if fewest == most else f"{fewest} to {most}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def table_row(report: Report, result: Result) -> tuple[str, ...]:
    """Name, median and quartiles in ms, GFLOP/s, share of the limit, extra MB, ratio to conv2d, samples."""
    if not result.samples:
        return (title(result.name), "wrong" if result.is_wrong else "not run", *["-"] * 5)
    seconds, ratio = result.seconds, report.ratio_to_peer(result)
    return (
        title(result.name),
        milliseconds(seconds.median),
        f"{milliseconds(seconds.low)}-{milliseconds(seconds.high)}",
        f"{result.flops_per_second / 1e9:,.0f}",
        f"{report.share_of_product(result):.0%}",
        "-" if result.memory is None else f"{result.memory.peak / 1e6:,.0f}",
        "-" if ratio is None else f"{ratio:.2f}",
    )


def milliseconds(seconds: float) -> str:
    """With three digits or more."""
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
