"""The picture of `aligncli bench model`: a bar a detector, split into its parts, and ratios to RetinaNet."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aligncli.analysis.bench.anatomy import PARTS
from aligncli.analysis.bench.model_report import ModelReport, ModelResult
from aligncli.analysis.bench.roofline import draw_roofline, name_colours, roofline_points
from aligncli.analysis.figures import wrapped_label
from aligncli.analysis.pictures import PALETTE

BAR_HEIGHT, MARGINS, ROOFLINE = 0.42, 1.5, 3.2  # inches
ROOM_FOR_LABELS = 1.34  # of the longest bar
LINE_WIDTH = 100  # characters below the axis
WHOLE = "not split"
SHADES = dict(zip((*PARTS, WHOLE), ((190, 190, 190), *(PALETTE[index] for index in (6, 1, 4, 0)), (225, 225, 225))))
COLOURS = {part: tuple(value / 255 for value in shade) for part, shade in SHADES.items()}


def plot_models(report: ModelReport) -> bytes:
    """A PNG. Bars are as long as the median time without hooks; parts have their shares of the calls with hooks."""
    results = list(report.results)
    has_roofline = report.bandwidth is not None and bool(roofline_points(report))
    heights = [MARGINS + BAR_HEIGHT * len(results)] + [ROOFLINE] * has_roofline
    figure = Figure(figsize=(9, sum(heights)), dpi=120, layout="constrained")
    axes, *below = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    longest = max((milliseconds(result) for result in results), default=0.0) or 1.0
    for row, result in enumerate(results):
        _draw_bar(axes, row, result)
        axes.text(milliseconds(result) + longest * 0.012, row, label(report, result), va="center", fontsize=9)
    axes.set_yticks(range(len(results)), [_row_name(result) for result in results], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * ROOM_FOR_LABELS)
    below_axis = f"milliseconds, and {describe_ratios(report)}", describe_conditions(report)
    axes.set_xlabel("\n".join(wrapped_label(line, LINE_WIDTH) for line in below_axis), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
    for panel in below:
        colours = name_colours(result.name for result in results)
        draw_roofline(panel, report, colours)
        for result, x, y in roofline_points(report):
            panel.annotate(wrapped_label(result.name), (x, y), (6, -3), textcoords="offset points", fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def milliseconds(result: ModelResult) -> float:
    """The length of a bar; nothing where a detector did not run."""
    return result.seconds.median * 1e3 if result.samples else 0.0


def bar_parts(result: ModelResult) -> Mapping[str, float]:
    """Milliseconds by part, which add up to `milliseconds`."""
    split = result.split or {WHOLE: 1.0}
    scale = milliseconds(result) / sum(split.values())
    return {part: value * scale for part, value in split.items()}


def label(report: ModelReport, result: ModelResult) -> str:
    """`412 ms   0.83 (0.81)`: time, ratio to the peer, and the paper's ratio where it has one."""
    ratio, paper = report.ratio_to_peer(result), report.paper_ratio(result)
    if not result.samples:
        return "wrong" if result.is_wrong else "not run"
    value = milliseconds(result)
    text = f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
    if ratio is None:
        return text
    return f"{text}   {ratio:.2f}" + ("" if paper is None else f" ({paper:.2f})")


def describe_conditions(report: ModelReport) -> str:
    """Images, type and machine in one line."""
    subject, machine = report.subject, report.machine
    height, width = subject["size"]
    images = "one image" if subject["batch"] == 1 else f"{subject['batch']} images"
    threads = "one thread" if machine.num_threads == 1 else f"{machine.num_threads} threads"
    where = f"{threads} of {machine.processor}" if machine.device == "cpu" else machine.device
    return f"{images} of {height}x{width}, {report.precision}, {where}"


def describe_ratios(report: ModelReport) -> str:
    """What the ratios in the labels are."""
    paper = f" (in the paper: {report.paper.table}, {report.paper.gpu})"
    return f"ratios to {report.peer}" + (paper if report.peer in report.paper.milliseconds else "")


def _row_name(result: ModelResult) -> str:
    """`torchvision:` on a line of its own."""
    source, colon, rest = result.name.partition(":")
    return "\n".join(wrapped_label(part) for part in (source + colon, rest) if part)


def _draw_bar(axes: Axes, row: int, result: ModelResult) -> None:
    left = 0.0
    for part, width in bar_parts(result).items() if result.samples else ():
        known = axes.get_legend_handles_labels()[1]
        name = None if part in known else part
        axes.barh(row, width, left=left, color=COLOURS[part], label=name, height=0.62)
        left += width
