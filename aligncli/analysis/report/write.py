"""Reports as files: `report.html` with its pictures in a run's folder, or one page for several runs anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aligncli.analysis.figures import figure_style
from aligncli.analysis.report.drawings import DOTS_PER_INCH, Chart, draw_charts
from aligncli.analysis.report.facts import Evaluated, RunFacts, read_runs
from aligncli.analysis.report.page import render_page
from aligncli.analysis.report.sections import build_page
from aligncli.build import NO_PARTS, Parts
from aligncli.engine.detections import Comparison, compare_runs
from aligncli.engine.run_folder import write_text
from aligncli.errors import UserError

ALIGNMENT_IMAGES = 16  # after a training: seconds, also for a large detector
REPORT, PICTURES = "report.html", "pictures"


def write_run_report(
    run_dir: Path,
    *,
    out: Path | None = None,
    num_alignment_images: int = ALIGNMENT_IMAGES,
    device: str = "cpu",
    parts: Parts = NO_PARTS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Write a run's report (default: RUN/report.html) and its charts as RUN/pictures/*.png. Returns the report's path.

    An unfinished run gets what there is. Raises CheckpointError, RecipeError for what is no run folder.
    """
    runs = read_runs(
        [run_dir], num_alignment_images=num_alignment_images, device=device, parts=parts, progress=progress
    )
    charts = draw_charts(runs)
    path = out or run_dir / REPORT
    html = render_page(build_page(runs, charts, {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html)
    _save(charts, run_dir / PICTURES)
    return path


def write_comparison(
    run_dirs: Sequence[Path],
    out: Path,
    *,
    num_alignment_images: int = ALIGNMENT_IMAGES,
    device: str = "cpu",
    parts: Parts = NO_PARTS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Write one page for several runs; those evaluated on the first one's images are compared with it. As above."""
    runs = read_runs(run_dirs, num_alignment_images=num_alignment_images, device=device, parts=parts, progress=progress)
    html = render_page(build_page(runs, draw_charts(runs), _differences(runs)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, html)
    return out


def _differences(runs: Sequence[RunFacts]) -> dict[str, Comparison]:
    first, *others = runs
    found: dict[str, Comparison] = {}
    for other in others:
        if not (isinstance(first.evaluated, Evaluated) and isinstance(other.evaluated, Evaluated)):
            continue
        try:
            found[other.name] = compare_runs(first.summary.path, other.summary.path)
        except UserError:  # other images, or no hotcoco here: the page has the two results, and no interval
            continue
    return found


def _save(charts: Mapping[str, Chart], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with figure_style():
        for name, chart in charts.items():
            chart.figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
