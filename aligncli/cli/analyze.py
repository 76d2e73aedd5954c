"""`aligncli analyze-alignment`: Figure 4 for any one-stage detector, and Figures 1 to 3 as pictures."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.completion import complete_run
from aligncli.cli.outputs import require_folder
from aligncli.cli.tables import number
from aligncli.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligncli.analysis.alignment.distributions import Distribution
    from aligncli.analysis.alignment.measure import Measurement
    from aligncli.cli.render import Output

NUMBERS = ("locations", "mean", "quartiles", "≥ .5", "≥ .7")  # of IoUs: the columns of every table

Detectors = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN...",
        autocompletion=complete_run,
        help="Run folders, or torchvision:NAME such as torchvision:fcos_resnet50_fpn; several are compared.",
    ),
]
ImageLimit = Annotated[
    int | None, typer.Option("--images", metavar="N", min=1, help="Measure on the first N images. Default: all.")
]
Confidence = Annotated[
    float,
    typer.Option("--score", metavar="S", min=0.0, max=1.0, help="Locations with a higher score count as confident."),
]
Untrained = Annotated[
    bool, typer.Option("--untrained", help="Show every run also as it was before its first training step.")
]
FigureFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        parser=options.folder,
        help="Where figures go. Default: RUN/alignment; ./alignment for more than one.",
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Write the paper's Figures 1 to 3, drawn by code, instead of measuring.")
]


def analyze_alignment(
    detectors: Detectors = None,
    *,
    data: options.DataFolder = None,
    images: ImageLimit = None,
    score: Confidence = 0.2,
    untrained: Untrained = False,
    out: FigureFolder = None,
    explain: Explain = False,
    code: options.Code = None,
    weights: options.Weights = None,
    download: options.DownloadDefault = False,
    offline: options.Offline = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Measure how well features and boxes agree.

    The IoU between the box that a convolution reads at a location (its implicit RoI) and the box that it predicts
    from there (refined anchor, anchor): Figure 4, on a run's validation images or on --data. Prints a table and
    writes figures as PNG, PDF and SVG. Of AlignDet the refined anchors are compared, and the initial ones; of other
    detectors the anchors, and the decoded boxes.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    one_run = detectors is not None and len(detectors) == 1 and Path(detectors[0]).is_dir()
    folder = out or (Path(detectors[0]) if detectors and one_run else Path()) / "alignment"
    require_folder(folder)
    download = options.may_download(download=download, offline=offline)
    if explain:
        if detectors:
            raise UserError("--explain draws Figures 1 to 3 and measures nothing: leave out the runs, or --explain")
        _explain(folder, output)
        return
    if not detectors:
        raise UserError("no detector given: name one or more run folders or torchvision:NAME, or --explain")
    with output.waiting():  # torch takes seconds to import
        from aligncli.analysis.alignment.figure4 import write_figures
        from aligncli.analysis.alignment.sources import load_sources, measure_detector
        from aligncli.engine.process import prepare_process

        prepare_process()
        device = options.pick_device(device)
        loaded = load_sources(
            detectors,
            untrained=untrained,
            parts=options.read_code(code),
            weights=weights,
            download=download,
            device=device,
        )
    for note in (note for _, detector in loaded for note in detector.notes):
        output.note(note)
    measured = []
    with output.progress() as reporter:
        for name, detector in loaded:

            def tell(done: int, total: int, name: str = name) -> None:
                reporter.stage(f"measuring {name}", done=done, total=total)

            measured.append(
                measure_detector(
                    name, detector, data=data, num_images=images, score=score, device=device, progress=tell
                )
            )
    measurements = [measurement for measurement, _ in measured]
    for measurement in measurements:
        for remark in measurement.remarks:
            output.note(f"{measurement.name}: {remark}")
    if len(measurements) == 1:
        _print_one(measurements[0], output)
    else:
        _print_several(measurements, output)
    if not any(measurement.distribution("confident").num_locations for measurement in measurements):
        output.note(f"no location has a score above {score:g}: train longer, or lower --score")
    files = write_figures(measured, folder)
    output.line(f"figures: {files[0].parent}")
    output.data(
        {
            "score": score,
            "detectors": [measurement.to_json() for measurement in measurements],
            "files": [str(path) for path in files],
        }
    )


def _explain(folder: Path, output: Output) -> None:
    with output.waiting():
        from aligncli.analysis.explain import FIGURES
        from aligncli.analysis.figures import save_figure
    files = [path for name, draw in FIGURES.items() for path in save_figure(draw(), folder, name)]
    output.fields({name: str(folder / f"{name}.png") for name in FIGURES})
    output.line("each also as PDF and SVG")
    output.data({"files": [str(path) for path in files]})


def _print_one(measurement: Measurement, output: Output) -> None:
    """Every set with its splits, then the other kinds of boxes, a line a set."""
    output.heading(measurement.name, _describe(measurement))
    rows = []
    for row in measurement.rows():
        if not row.part:
            rows.append((set_name(row.subset, measurement.score), *numbers(row.distribution)))
        elif row.distribution.num_locations:
            rows.append((f"  {part_name(row.split, row.part)}", *numbers(row.distribution)))
    output.table((measurement.comparison, *NUMBERS), rows)
    for comparison in list(measurement.groups)[1:]:
        rows = [
            (set_name(subset, measurement.score), *numbers(measurement.distribution(subset, comparison=comparison)))
            for subset in _sets()
        ]
        output.table((comparison, *NUMBERS), rows)


def _print_several(measurements: Sequence[Measurement], output: Output) -> None:
    """Detectors side by side: each set in full, the means for the other kinds of boxes, the means of the splits."""
    from aligncli.analysis.alignment.plots import legend_names

    score, names = measurements[0].score, legend_names(measurements)
    output.fields({measurement.name: _describe(measurement) for measurement in measurements})
    for subset in _sets():
        rows = [(name, *numbers(each.distribution(subset))) for name, each in zip(names, measurements, strict=True)]
        output.table((set_name(subset, score), *NUMBERS), rows)
    others = [
        (f"{name}: {boxes}", *(number(each.distribution(subset, comparison=boxes).mean, 2) for subset in _sets()))
        for name, each in zip(names, measurements, strict=True)
        for boxes in list(each.groups)[1:]
    ]
    if others:
        output.table(("mean, other boxes", *(set_name(subset, score) for subset in _sets())), others)
    parts = dict.fromkeys(
        (split, part) for each in measurements for split, known in each.splits().items() for part in known
    )
    rows = [
        (part_name(split, part), *(_confident_mean(each, split, part) for each in measurements))
        for split, part in parts
    ]
    rows = [row for row in rows if set(row[1:]) != {"-"}]
    if rows:
        columns = (textwrap.fill(name, 14) for name in names)
        output.table((textwrap.fill(f"mean, {set_name('confident', score)}", 14), *columns), rows)


def _describe(measurement: Measurement) -> str:
    count = measurement.num_images
    images = f"{count:,} image{'' if count == 1 else 's'}"
    return f"{measurement.title}: its implicit RoIs against {measurement.comparison}, {images}"


def _confident_mean(measurement: Measurement, split: str, part: str) -> str:
    if part not in measurement.splits()[split]:
        return "-"
    return number(measurement.distribution("confident", **{split: part}).mean, 2)


def set_name(subset: str, score: float) -> str:
    """A set of locations, in a word or two."""
    return {"all": "all", "confident": f"confident (> {score:g})", "foreground": "on objects"}[subset]


def part_name(split: str, part: str) -> str:
    """A part of a split: `P3`, `small`, `aspect 1.5 to 2`."""
    return f"aspect {part}" if split == "aspect" else part


def numbers(distribution: Distribution) -> tuple[str, ...]:
    """Locations, mean, quartiles, shares above; dashes where there are no locations."""
    from aligncli.analysis.alignment.distributions import SHARES_ABOVE

    count = distribution.num_locations
    if count == 0:
        return ("0", *["-"] * (len(NUMBERS) - 1))
    quartiles = " ".join(number(distribution.quantile(share), 2) for share in (0.25, 0.5, 0.75))
    shares = [f"{distribution.share_above(iou):.0%}" for iou in SHARES_ABOVE]
    return (f"{count:,}", number(distribution.mean, 2), quartiles, *shares)


def _sets() -> tuple[str, ...]:
    from aligncli.analysis.alignment.measure import SETS

    return SETS
