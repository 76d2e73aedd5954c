"""Figure 4 of several runs: the numbers of its study, and all pictures that go with a measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aligncli.analysis.alignment.examples import Example
from aligncli.analysis.alignment.measure import Measurement
from aligncli.analysis.alignment.overlay import draw_overlay
from aligncli.analysis.alignment.plots import legend_names, plot_distributions, plot_refinement, plot_splits
from aligncli.analysis.alignment.sources import load_sources, measure_detector
from aligncli.analysis.figures import save_figure

Measured = tuple[Measurement, Sequence[Example]]
CONFIDENT_SCORE = 0.2
CAPTIONS = {
    "distributions": "How well what a convolution reads agrees with the box that it predicts from",
    "splits": "The same by level, scale and aspect ratio",
    "boxes": "The same with the anchors before they were refined",
    "overlay": "Refined anchors, implicit RoIs and taps on images",
}


def measure_run(
    run_dir: Path,
    *,
    name: str,
    score: float = CONFIDENT_SCORE,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Measured:
    """Measure a run on its validation images, under the name that tables and figures give it."""
    ((_, detector),) = load_sources([str(run_dir)], device=device)
    return measure_detector(name, detector, score=score, device=device, progress=progress)


def study_metrics(measurement: Measurement) -> dict[str, float]:
    """The metrics of recipes/figure4_alignment.py, percent; NaN where there are no such locations."""
    confident = measurement.distribution("confident")
    return {
        "confident": 100 * confident.mean,
        "share >= .5": 100 * confident.share_above(0.5),
        "share >= .7": 100 * confident.share_above(0.7),
        "on objects": 100 * measurement.distribution("foreground").mean,
        "all": 100 * measurement.distribution("all").mean,
    }


def write_figures(measured: Sequence[Measured], folder: Path) -> list[Path]:
    """All figures of the measurements, each as PNG, PDF and SVG; the overlay only where objects were found."""
    measurements = [measurement for measurement, _ in measured]
    names = legend_names(measurements)
    figures = {
        "distributions": plot_distributions(measurements),
        "splits": plot_splits(measurements),
        "boxes": plot_refinement(measurements),
        "overlay": draw_overlay([(name, examples) for name, (_, examples) in zip(names, measured, strict=True)]),
    }
    return [path for name, figure in figures.items() if figure for path in save_figure(figure, folder, name)]
