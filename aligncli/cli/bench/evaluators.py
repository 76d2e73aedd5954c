"""`aligncli bench eval`: how long scoring takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.bench import shared

if TYPE_CHECKING:
    from aligncli.analysis.bench.rate_report import RateReport
    from aligncli.cli.render import Output

Images = Annotated[int, typer.Option("--images", metavar="N", min=1, max=1_000_000, help="Images.")]
Classes = Annotated[int, typer.Option("--classes", metavar="N", min=1, max=100_000, help="Classes.")]
Detections = Annotated[int, typer.Option("--detections", metavar="N", min=1, max=100_000, help="Detections an image.")]
Objects = Annotated[int, typer.Option("--objects", metavar="N", min=1, max=100_000, help="Ground truths an image.")]


def evaluators(
    *,
    images: Images = 5000,
    classes: Classes = 80,
    detections: Detections = 100,
    objects: Objects = 7,
    runs: shared.Runs = 3,
    seconds: shared.Seconds = 300.0,
    plot: shared.Bars = None,
    json: options.Json = False,
) -> None:
    """Time the COCO evaluators, and see that their numbers are equal.

    From ground truth and results as Python objects to the metrics, AP by class among them. The defaults are as
    much as COCO's val2017, and take about five minutes, nearly all of it for pycocotools.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    shared.check_picture(plot)
    with output.waiting():  # torch takes seconds to import
        from aligncli.analysis.bench.made_results import ScoringCase
        from aligncli.analysis.bench.scoring import bench_evaluators
    case = ScoringCase(num_images=images, num_classes=classes, num_detections=detections, num_objects=objects)
    with output.progress(waiting="making results") as reporter:
        report = bench_evaluators(
            case,
            runs=runs,
            seconds=seconds,
            progress=lambda stage, done, total: reporter.stage(stage, done=done, total=total),
        )
    _print(report, output)
    output.data(report.to_json())
    shared.draw(report, output, plot)
    if not all(result.samples for result in report.results):
        raise typer.Exit(1)


def _print(report: RateReport, output: Output) -> None:
    subject = report.subject
    amounts = f"{subject['num_images']:,} images, {subject['num_classes']} classes"
    each = f"{subject['num_detections']} detections and {subject['num_objects']} objects an image"
    output.heading("evaluators", f"{amounts}, {each}")
    output.fields(shared.common_conditions(report))
    shared.show_rates(output, report, what="scoring")
    if all(result.samples for result in report.results):
        output.line(f"equal to the last bit: all metrics and AP of all classes; AP {subject['metrics']['AP']:.2f}")
    shared.show_if_busy(output, report)
