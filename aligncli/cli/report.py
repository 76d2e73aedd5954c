"""`aligncli report`: a run, or several side by side, as one HTML file; and the report that a training ends with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.completion import complete_run
from aligncli.cli.outputs import require_output
from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.catalog import Parts
    from aligncli.cli.render import Output

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Run folders; several are compared.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE.html", help="Default: RUN/report.html; ./comparison.html for more than one run."
    ),
]
ImageLimit = Annotated[
    int, typer.Option("--images", metavar="N", min=1, help="Measure alignment on the first N validation images.")
]


def report(
    runs: Runs,
    *,
    out: ReportFile = None,
    images: ImageLimit = 200,
    code: options.Code = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Write a report: results, curves, classes, errors, detections, alignment, recipe.

    One HTML file that needs no network, for browsers and phones, light and dark. The charts of a single run are also
    written to RUN/pictures. Runs that were evaluated on the same images are compared with the first one, with a
    paired bootstrap. A training that has not ended yet gets what there is.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    if out is not None:
        require_output(out, ".html", ".htm")
    with output.waiting():  # torch takes seconds to import
        from aligncli.analysis.report.write import write_comparison, write_run_report
        from aligncli.engine.process import prepare_process

        prepare_process()
        device = options.pick_device(device)
    parts = options.read_code(code)
    with output.progress(waiting="reading the runs") as reporter:

        def tell(done: int, total: int) -> None:
            reporter.stage("reading the runs", done=done, total=total)

        how = {"num_alignment_images": images, "device": device, "parts": parts, "progress": tell}
        if len(runs) == 1:
            path = write_run_report(runs[0], out=out, **how)
        else:
            path = write_comparison(runs, out or Path("comparison.html"), **how)
    output.line(f"report: {path}")
    output.data({"runs": [str(run) for run in runs], "report": str(path)})


def report_training(run_dir: Path, *, device: str, parts: Parts, output: Output) -> Path | None:
    """The report that a training ends with; None, and a note, where none can be written: the run is whole without."""
    with output.waiting("writing the report"):
        from aligncli.analysis.report.write import write_run_report

        try:
            return write_run_report(run_dir, device=device, parts=parts)
        except (UserError, OSError) as error:
            output.note(f"no report: {error}")
            return None
