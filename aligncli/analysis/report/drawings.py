"""The charts of a report, each with its caption and the text that stands for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from aligncli.analysis.alignment.overlay import draw_overlay
from aligncli.analysis.alignment.plots import legend_names, plot_distributions
from aligncli.analysis.charts import plot_class_curves, plot_class_precision, plot_errors, plot_precision_recall
from aligncli.analysis.curves import plot_curves, plot_curves_of
from aligncli.analysis.report.facts import Aligned, Evaluated, RunFacts

DOTS_PER_INCH = 150  # of the PNG files


@dataclass(frozen=True)
class Chart:
    """A drawn figure. `photographs`: it shows images, so it keeps its white paper."""

    figure: Figure
    alt: str
    caption: str
    wide: bool = False
    photographs: bool = False


def draw_charts(runs: Sequence[RunFacts]) -> dict[str, Chart]:
    """All charts that the runs have something for, by the name of their file."""
    return {name: chart for part in (_training, _evaluation, _alignment) for name, chart in part(runs)}


def _training(runs: Sequence[RunFacts]) -> Iterator[tuple[str, Chart]]:
    trained = [(run.name, run.records) for run in runs if any("loss" in record for record in run.records)]
    if trained:
        yield (
            "curves",
            Chart(
                plot_curves(trained[0][1]) if len(runs) == 1 else plot_curves_of(trained),
                alt=f"Training curves of {_names(trained)}: loss, AP at evaluations, and learning rate over iterations",
                caption="Faint: the logged losses. Strong: their running mean over a fortieth of the run.",
            ),
        )


def _evaluation(runs: Sequence[RunFacts]) -> Iterator[tuple[str, Chart]]:
    evaluated = [(run.name, run.evaluated) for run in runs if isinstance(run.evaluated, Evaluated)]
    if not evaluated:
        return
    classes = [(name, found.curves.average_precision()) for name, found in evaluated]
    yield (
        "class_precision",
        Chart(
            plot_class_precision(classes),
            alt=f"AP by class of {_names(classes)}; the table below has the numbers",
            caption="AP by class, averaged over IoU .5 to .95.",
        ),
    )
    curves = [(name, found.curves) for name, found in evaluated]
    yield (
        "precision_recall",
        Chart(
            plot_precision_recall(curves),
            alt=f"Precision over recall of {_names(curves)}, the mean over classes",
            caption="Mean over classes. The area under a curve is the AP at that IoU.",
        ),
    )
    if len(runs) == 1:
        yield (
            "class_precision_recall",
            Chart(
                plot_class_curves(curves[0][1]),
                alt=f"Precision over recall of {_names(curves)} at IoU .5, by class",
                caption="By class, at IoU .5; of many classes the best six, the worst six, and the others faint.",
            ),
        )
    errors = [(name, found.errors) for name, found in evaluated if found.errors]
    if errors:
        yield (
            "errors",
            Chart(
                plot_errors(errors),
                alt=f"AP that repairing each kind of error would add to {_names(errors)}; the tables have the numbers",
                caption="What AP would gain, were all errors of one kind repaired and nothing else (as in TIDE).",
            ),
        )


def _alignment(runs: Sequence[RunFacts]) -> Iterator[tuple[str, Chart]]:
    measured = [run.aligned for run in runs if isinstance(run.aligned, Aligned)]
    if not measured:
        return
    measurements = [each.measurement for each in measured]
    names = legend_names(measurements)
    yield (
        "alignment",
        Chart(
            plot_distributions(measurements),
            alt=f"How the IoU of implicit RoIs and boxes is distributed for {', '.join(names)}; the table has means",
            caption="Figure 4 of the paper: IoU of what a convolution reads (implicit RoI) and the box predicted from.",
            wide=True,
        ),
    )
    overlay = draw_overlay([(name, each.examples) for name, each in zip(names, measured, strict=True)])
    if overlay:
        yield (
            "alignment_examples",
            Chart(
                overlay,
                alt="Found objects with the box that was predicted from, its implicit RoI, and where the taps read",
                caption="Found objects: the box that the detector predicted from, its implicit RoI, and the taps.",
                wide=True,
                photographs=True,
            ),
        )


def _names(runs: Sequence[tuple[str, object]]) -> str:
    return ", ".join(name for name, _ in runs)
