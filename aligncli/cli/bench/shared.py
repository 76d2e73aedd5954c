"""What the benchmarks' commands have in common: options, names and sizes, and numbers for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.outputs import require_output
from aligncli.errors import DeviceError, UserError

if TYPE_CHECKING:
    from aligncli.analysis.bench.rate_report import RateReport, RateResult
    from aligncli.analysis.bench.report import Report
    from aligncli.analysis.bench.timing import Spread
    from aligncli.cli.render import Output

LARGEST_SIDE = 8192  # pixels
QUIET = 0.85  # share of the processor below which something else was running


class AutocastType(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Size = Annotated[str, typer.Option("--size", metavar="HxW", help="Image, in pixels; padded to multiples of 32.")]
Autocast = Annotated[AutocastType, typer.Option("--dtype", help="Of convolutions, by autocast where not float32.")]
ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", help="Lay out torchvision's detectors in memory as ours.")
]
TF32 = Annotated[
    bool,
    typer.Option("--tf32", help="On CUDA, float32 in TF32, as `train` and `eval` have it; it is full without."),
]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw bars, and a roofline.")]
Bars = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw bars.")]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, max=1024, help="Images.")]
Runs = Annotated[int, typer.Option("--runs", metavar="N", min=1, max=10_000, help="Samples of each, at most.")]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds", metavar="S", min=0.0, help="Time for all samples: the slow get fewer of them, but at least 3."
    ),
]


def device_to_measure(name: str, *, tf32: bool = False) -> str:
    """The device behind --device. Raises DeviceError if this machine lacks it, or nobody can time it, or no TF32."""
    import torch

    from aligncli.engine.inference import check_device

    device = options.pick_device(name)
    check_device(device)
    if torch.device(device).type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {device} is not measured: take cpu or cuda")
    if tf32 and torch.device(device).type != "cuda":
        raise DeviceError(f"--tf32 is a precision of CUDA's, and the device is {device}: leave it out")
    return device


def check_types(dtypes: Iterable[str], device: str) -> None:
    """Raises DeviceError for a type that the device does not compute in."""
    import torch

    if AutocastType.float16 in dtypes and torch.device(device).type == "cpu":
        raise DeviceError("float16 needs a GPU: on the CPU take bfloat16")


def check_picture(path: Path | None) -> None:
    """Before minutes of work: whether the picture can be written. Raises UserError."""
    if path is not None:
        require_output(path, ".png", option="--plot")


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


def parse_size(text: str, *, option: str = "--size") -> tuple[int, int]:
    """(height, width) of `800x1333`. Raises UserError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise UserError(
            f"{option} {text!r} must be height x width in pixels, such as 800x1333, up to {LARGEST_SIDE} each"
        )
    return size


def common_conditions(report: Report) -> dict[str, str]:
    """What the numbers depend on besides what is benchmarked."""
    machine, product = report.machine, report.product
    counts = [len(result.samples) for result in report.results if result.samples]
    processor = f"{machine.processor}, {machine.instructions}, {count(machine.num_cores, 'core')}"
    return {
        "machine": f"{processor}, {count(machine.num_threads, 'thread')}"
        + ("" if machine.device == "cpu" else f"; {machine.device}"),
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "GEMM": f"{product.flops_per_second / 1e9:,.0f} GFLOP/s, {product.name}: the machine's limit",
        "samples": f"{_range(counts)} of each, in turns; median and quartiles",
    }


def show_rates(output: Output, report: RateReport, *, what: str) -> None:
    """The table of contenders that do images, and what is to be said about them."""
    output.table(
        (what, "ms", "quartiles", "images/s", "speed-up"),
        [_rate_row(report, result) for result in report.results],
    )
    output.line(f"speed-up: of medians, over {report.peer}")
    for result in report.results:
        for text in filter(None, (result.note, result.found)):
            output.line(f"{result.name}: {text}")


def _rate_row(report: RateReport, result: RateResult) -> tuple[str, ...]:
    if not result.samples:
        return (result.name, "wrong" if result.is_wrong else "not run", *["-"] * 3)
    return (
        result.name,
        milliseconds(result.seconds.median),
        quartiles(result.seconds),
        f"{result.images_per_second:,.3g}" if result.images_per_second < 100 else f"{result.images_per_second:,.0f}",
        ratio(report.speed_up(result)),
    )


def draw(report: Report, output: Output, path: Path | None, *, title: Callable[[str], str] = str) -> None:
    """The picture of a benchmark that has none of its own, where it is asked for."""
    if path is None:
        return
    from aligncli.analysis.bench.bars_plot import plot_bars

    save_picture(path, plot_bars(report, title=title))
    output.line(f"picture: {path}")


def save_picture(path: Path, png: bytes) -> None:
    """Write it whole or not at all, in a folder that may be new."""
    from aligncli.engine.disk import write_file

    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, png)


def show_if_busy(output: Output, report: Report) -> None:
    """A note where the machine had other work to do."""
    share = report.share_of_processor()
    if report.machine.device == "cpu" and share < QUIET:
        output.note(f"the machine was busy: the matrix product got {share:.0%} of its threads, so times are too long")


def _range(counts: Sequence[int]) -> str:
    fewest, most = min(counts, default=0), max(counts, default=0)
    return str(most) if fewest == most else f"{fewest} to {most}"


def count(number: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def milliseconds(seconds: float) -> str:
    """With three digits or more."""
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def quartiles(spread: Spread) -> str:
    """Of milliseconds."""
    return f"{milliseconds(spread.low)}-{milliseconds(spread.high)}"


def share(value: float | None) -> str:
    """In percent; a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"


def ratio(value: float | None) -> str:
    """With two decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def megabytes(value: int | None) -> str:
    """Of bytes; a dash where they are unknown."""
    return "-" if value is None else f"{value / 1e6:,.0f}"
