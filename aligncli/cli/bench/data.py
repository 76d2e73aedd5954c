"""`aligncli bench data`: how fast images come in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.bench import shared

if TYPE_CHECKING:
    from aligncli.analysis.bench.rate_report import RateReport
    from aligncli.cli.render import Output

Images = Annotated[int, typer.Option("--images", metavar="N", min=1, max=100_000, help="JPEG files to make.")]
PhotoSize = Annotated[str, typer.Option("--photo", metavar="HxW", help="Of the files made, in pixels.")]
Folder = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="Images with COCO annotations, instead of files made here."),
]
ShortSide = Annotated[
    int, typer.Option("--short-side", metavar="PX", min=1, max=shared.LARGEST_SIDE, help="Resize to this short side,")
]
LongSide = Annotated[
    int, typer.Option("--long-side", metavar="PX", min=1, max=shared.LARGEST_SIDE, help="and to no more than this.")
]
BatchOfFiles = Annotated[int, typer.Option("--batch", metavar="N", min=1, max=1024, help="Images a batch.")]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=0, max=1024, help="Processes that read; 0 is this one.")
]


def data(
    *,
    images: Images = 24,
    photo: PhotoSize = "480x640",
    folder: Folder = None,
    short_side: ShortSide = 800,
    long_side: LongSide = 1333,
    batch: BatchOfFiles = 2,
    workers: Workers = 0,
    threads: options.Threads = 1,
    runs: shared.Runs = 11,
    seconds: shared.Seconds = 60.0,
    plot: shared.Bars = None,
    json: options.Json = False,
) -> None:
    """Time the loader against a plain loop of PIL and torchvision.

    Passes over all images take turns, from JPEG files to resized and flipped images with their boxes. Without
    --data the files are made in a temporary folder, noise with the spectrum of photographs and their bytes a pixel.
    A pass starts its workers: give many images where there are some.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    photo_size = shared.parse_size(photo, option="--photo")
    shared.check_picture(plot)
    with output.waiting():  # torch takes seconds to import
        from aligncli.analysis.bench.data import bench_loaders
        from aligncli.analysis.bench.loaders import LoaderCase
        from aligncli.analysis.bench.machine import threads as limit_threads
        from aligncli.catalog import data_in

    with _files(folder, images, photo_size) as root:
        case = LoaderCase(data_in(root), short_side=short_side, long_side=long_side, batch=batch, workers=workers)
        with limit_threads(threads), output.progress(waiting="reading") as reporter:
            report = bench_loaders(
                case,
                runs=runs,
                seconds=seconds,
                progress=lambda stage, done, total: reporter.stage(stage, done=done, total=total),
            )
    _print(report, output, made=folder is None)
    output.data(report.to_json())
    shared.draw(report, output, plot)
    if not all(result.samples for result in report.results):
        raise typer.Exit(1)


@contextmanager
def _files(folder: Path | None, count: int, size: tuple[int, int]) -> Iterator[Path]:
    """The user's folder, or one that is made and gone afterwards."""
    if folder is not None:
        yield folder
        return
    from aligncli.analysis.bench.photos import make_photos

    with tempfile.TemporaryDirectory(prefix="aligncli-photos-") as made:
        yield make_photos(Path(made) / "data", count=count, size=size)


def _print(report: RateReport, output: Output, *, made: bool) -> None:
    subject = report.subject
    height, width = subject["median_size"]
    what = f"{'made JPEG files' if made else subject['data']}: {subject['num_images']} of {height}x{width}"
    output.heading("loaders", f"{what}{'' if made else ' (median)'} to {subject['short_side']}/{subject['long_side']}")
    workers = shared.count(subject["workers"], "worker") if subject["workers"] else "no workers"
    output.fields({"batches": f"of {subject['batch']}, {workers}", **shared.common_conditions(report)})
    shared.show_rates(output, report, what="one pass")
    shared.show_if_busy(output, report)
