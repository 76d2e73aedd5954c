"""What a report's page holds, part by part: results, training, classes, errors, images, alignment, recipe, machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from aligncli.analysis.alignment.measure import SETS
from aligncli.analysis.alignment.plots import describe_set
from aligncli.analysis.report.detections import detection_blocks
from aligncli.analysis.report.drawings import Chart
from aligncli.analysis.report.embed import embed_chart, embed_raster
from aligncli.analysis.report.facts import Aligned, Evaluated, RunFacts
from aligncli.analysis.report.page import Block, Fields, Figure, Page, Section, Table, Text
from aligncli.config.describe import describe_data, describe_model, recipe_sections
from aligncli.engine.detections import Comparison
from aligncli.engine.metrics import METRIC_NAMES

Charts = Mapping[str, Chart]
SHOWN_DIFFERENCES = ("AP", "AP50", "AP75")


def build_page(runs: Sequence[RunFacts], charts: Charts, differences: Mapping[str, Comparison]) -> Page:
    """The page of one run, or of several; `differences` to the first run by the others' names, where known."""
    sections = (
        Section("Results", (*_results(runs), *_differences(runs, differences))),
        Section("Training", (*_figures(charts, "curves"), _training(runs))),
        Section("Classes", (*_figures(charts, "class_precision"), *_classes(runs))),
        Section("Precision and recall", tuple(_figures(charts, "precision_recall", "class_precision_recall"))),
        Section("Errors", (*_figures(charts, "errors"), *_errors(runs))),
        Section("Detections", (*_reasons(runs), *detection_blocks(runs))),
        Section("Alignment", (*_figures(charts, "alignment", "alignment_examples"), *_alignment(runs))),
        Section("Recipe", tuple(_recipe(runs))),
        Section("Environment", (_environment(runs),)),
    )
    first, *others = runs
    metrics = first.summary.metrics
    return Page(
        title=" · ".join(run.name for run in runs),
        subtitle=f"{len(runs)} runs side by side" if others else first.summary.recipe.summary,
        highlights={} if others or not metrics else {name: _metric(metrics, name) for name in METRIC_NAMES[:3]},
        sections=tuple(section for section in sections if section.blocks),
    )


def _figures(charts: Charts, *names: str) -> Iterator[Figure]:
    for chart in (charts[name] for name in names if name in charts):
        picture = embed_raster(chart.figure, chart.alt) if chart.photographs else embed_chart(chart.figure, chart.alt)
        yield Figure(picture, chart.caption, wide=chart.wide)


def _results(runs: Sequence[RunFacts]) -> Iterator[Block]:
    evaluated = [run for run in runs if run.summary.metrics]
    if evaluated:
        areas = {run.summary.recipe.evaluation.area_bins for run in evaluated}
        captions = ("Average precision, percent", "Average recall, percent")
        for caption, names in zip(captions, (METRIC_NAMES[:7], METRIC_NAMES[7:])):
            rows = tuple((run.name, *(_metric(run.summary.metrics, name) for name in names)) for run in evaluated)
            yield Table(caption, ("run", *names), rows)
        bins = "; ".join(f"below {small**0.5:.0f}², below {large**0.5:.0f}²" for small, large in sorted(areas))
        lines = [
            f"s, m, l: small, medium and large objects, that is {bins} and larger, in pixels of the original image."
        ]
        lines += [f"Paper: {paper}" for paper in dict.fromkeys(run.summary.recipe.paper for run in evaluated) if paper]
        yield Text(tuple(lines))
    waiting = [run.name for run in runs if not run.summary.metrics]
    if waiting:
        yield Text((f"Not evaluated yet: {', '.join(waiting)}.",))


def _differences(runs: Sequence[RunFacts], differences: Mapping[str, Comparison]) -> Iterator[Table]:
    if not differences:
        return
    rows = []
    for name, found in differences.items():
        cells = [found.metrics[metric] for metric in SHOWN_DIFFERENCES]
        rows.append((name, *(f"{cell.delta:+.1f}  ({cell.low:+.1f} to {cell.high:+.1f})" for cell in cells)))
    samples = next(iter(differences.values())).samples
    yield Table(
        f"Difference to {runs[0].name}, with the 95 % interval of a paired bootstrap over images ({samples:,} samples)",
        ("run", *SHOWN_DIFFERENCES),
        tuple(rows),
    )


def _training(runs: Sequence[RunFacts]) -> Table:
    rows = []
    for run in runs:
        recipe, summary = run.summary.recipe, run.summary
        minutes = "-" if math.isnan(summary.seconds) else f"{summary.seconds / 60:.1f}"
        losses = [record["loss"] for record in run.records if "loss" in record]
        rows.append(
            (
                run.name,
                f"{summary.iteration:,} of {recipe.schedule.iterations:,}",
                f"{recipe.schedule.batch_size}",
                f"{recipe.seed}",
                f"{losses[-1]:.3f}" if losses else "-",
                minutes,
            )
        )
    columns = ("run", "iterations", "batch", "seed", "last loss", "minutes")
    return Table("Training", columns, tuple(rows), beside=len(runs) == 1)


def _classes(runs: Sequence[RunFacts]) -> Iterator[Block]:
    evaluated = [(run.name, run.evaluated) for run in runs if isinstance(run.evaluated, Evaluated)]
    if not evaluated:
        return
    _, first = evaluated[0]
    counts = dict.fromkeys(first.curves.names, 0)
    by_id = dict(zip(sorted(record["id"] for record in first.truth["categories"]), first.curves.names))
    for record in first.truth["annotations"]:
        counts[by_id[record["category_id"]]] += not record["iscrowd"]
    if len(evaluated) == 1:
        columns = ("class", "objects", "AP", "AP50", "AP75")
        values = [first.curves.average_precision(iou) for iou in (None, 0.5, 0.75)]
    else:
        columns = ("class", "objects", *(name for name, _ in evaluated))
        values = [found.curves.average_precision() for _, found in evaluated]
    rows = tuple(
        (name, f"{count:,}", *(_number(value.get(name, math.nan)) for value in values))
        for name, count in counts.items()
    )
    yield Table("AP by class, percent", columns, rows, folded=len(rows) > 20, beside=len(rows) <= 20)


def _errors(runs: Sequence[RunFacts]) -> Iterator[Block]:
    yield from _reasons(runs)
    for run in runs:
        if not isinstance(run.evaluated, Evaluated):
            continue
        if run.evaluated.no_errors:
            yield Text((f"{run.name}: {run.evaluated.no_errors}",))
        for iou in dict.fromkeys(item.iou for item in run.evaluated.errors):
            found = [item for item in run.evaluated.errors if item.iou == iou]
            rows = tuple(
                (
                    item.part,
                    f"{item.num_objects:,}",
                    _number(item.average_precision),
                    *(f"{gain:+.1f}" for gain in item.gains.values()),
                )
                for item in found
            )
            of_run = f"{run.name}: " if len(runs) > 1 else ""
            caption = f"{of_run}AP at IoU {iou:g}, and what repairing one kind of error alone would add"
            yield Table(caption, ("objects", "number", "AP", *found[0].gains), rows, folded=len(runs) > 1)


def _reasons(runs: Sequence[RunFacts]) -> Iterator[Text]:
    """Why a run has no detections to look at."""
    for run in runs:
        if isinstance(run.evaluated, str):
            yield Text((f"{run.name}: {run.evaluated}",))


def _alignment(runs: Sequence[RunFacts]) -> Iterator[Block]:
    rows = []
    for run in runs:
        if isinstance(run.aligned, str):
            yield Text((f"{run.name}: {run.aligned}",))
            continue
        measurement = run.aligned.measurement
        means = (measurement.distribution(subset) for subset in SETS)
        rows.append((run.name, measurement.title, f"{measurement.num_images:,}", *(_number(m.mean, 2) for m in means)))
    measured = [run.aligned for run in runs if isinstance(run.aligned, Aligned)]
    if measured:
        score = measured[0].measurement.score
        columns = ("run", "implicit RoIs", "images", *(describe_set(subset, score) for subset in SETS))
        yield Table("Mean IoU of implicit RoIs and the boxes predicted from, by set of locations", columns, tuple(rows))


def _recipe(runs: Sequence[RunFacts]) -> Iterator[Block]:
    for run in runs:
        recipe = run.summary.recipe
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        yield Fields(
            {
                f"{prefix}recipe": f"{recipe.name}, {recipe.summary}",
                "model": describe_model(recipe.model),
                "data": describe_data(recipe.data),
            }
        )
    keys = [_flat(run) for run in runs]
    if len(runs) == 1:
        rows = tuple(keys[0].items())
        yield Table("Every number of the recipe", ("key", "value"), rows, numeric=False, folded=True)
        return
    names = dict.fromkeys(name for each in keys for name in each)
    rows = tuple(
        (name, *(each.get(name, "-") for each in keys)) for name in names if len({each.get(name) for each in keys}) > 1
    )
    if rows:
        yield Table("Where the recipes differ", ("key", *(run.name for run in runs)), rows, numeric=False)


def _flat(run: RunFacts) -> dict[str, str]:
    """Every number of a recipe as `--set` takes it, by its dotted key."""
    flat = {}
    for section, line in recipe_sections(run.summary.recipe).items():
        for part in line.split("  "):
            key, _, value = part.partition("=")
            flat[key if section == "recipe" else f"{section}.{key}"] = value
    return flat


def _environment(runs: Sequence[RunFacts]) -> Table:
    names = dict.fromkeys(name for run in runs for name in run.environment)
    rows = tuple((name, *(run.environment.get(name, "-") for run in runs)) for name in names)
    return Table("Where it was trained", ("name", *(run.name for run in runs)), rows, numeric=False)


def _metric(metrics: Mapping[str, float], name: str) -> str:
    return _number(metrics.get(name, math.nan))


def _number(value: float, digits: int = 1) -> str:
    """A dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
