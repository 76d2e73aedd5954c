"""The picture of every benchmark without one of its own: bars a part, with ratios to the peer, and a roofline."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aligncli.analysis.bench.report import Report, Result
from aligncli.analysis.bench.roofline import MARKERS, draw_roofline, name_colours, roofline_points
from aligncli.analysis.figures import wrapped_label

BAR, MARGINS, ROOFLINE = 0.36, 1.3, 3.4  # inches
ROOM_FOR_LABELS = 1.3  # of the longest bar and its quartile
LINE_WIDTH = 80  # characters of a title or of the conditions
IN_WORDS = {"o": "circles", "s": "squares"}


def plot_bars(report: Report, *, title: Callable[[str], str] = str, conditions: str = "") -> bytes:
    """A PNG. `title` is a contender's name for people; `conditions` goes below."""
    parts = report.parts()
    has_roofline = report.bandwidth is not None and bool(roofline_points(report))
    heights = [MARGINS / 2 + BAR * len(results) for results in parts.values()] + [ROOFLINE] * has_roofline
    figure = Figure(figsize=(8, sum(heights) + MARGINS / 2), dpi=120, layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    colours = name_colours(result.name for result in report.results)
    for axes, (part, results) in zip(panels, parts.items(), strict=False):
        _draw_bars(axes, report, part, results, colours, title)
    if has_roofline:
        draw_roofline(panels[-1], report, colours)
        shown = ", ".join(f"{IN_WORDS[MARKERS[part]]}: {part}" for part in parts if part in MARKERS)
        panels[-1].set_title("; ".join(filter(None, ("roofline", shown))), loc="left", fontsize=10)
    if conditions:
        figure.supxlabel(wrapped_label(conditions, LINE_WIDTH), fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_bars(
    axes: Axes,
    report: Report,
    part: str,
    results: Sequence[Result],
    colours: dict[str, tuple[float, ...]],
    title: Callable[[str], str],
) -> None:
    lengths = [result.seconds.median * 1e3 if result.samples else 0.0 for result in results]
    ends = [result.seconds.high * 1e3 if result.samples else 0.0 for result in results]
    longest = max(ends, default=0.0) or 1.0
    for row, (result, length, end) in enumerate(zip(results, lengths, ends, strict=True)):
        axes.barh(row, length, color=colours[result.name], height=0.66)
        if result.samples:
            axes.plot([result.seconds.low * 1e3, end], [row, row], color="black", linewidth=1)
        axes.text(end + longest * 0.015, row, bar_label(report, result), va="center", fontsize=9)
    axes.set_yticks(range(len(results)), [wrapped_label(title(result.name)) for result in results], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * ROOM_FOR_LABELS)
    what = wrapped_label(f"{part}: ms, and ratio to {title(report.peer)}", LINE_WIDTH)
    axes.set_title(what, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def bar_label(report: Report, result: Result) -> str:
    """`412 ms   0.83`: median, and ratio to the peer."""
    if not result.samples:
        return "wrong" if result.is_wrong else "not run"
    value, ratio = result.seconds.median * 1e3, report.ratio_to_peer(result)
    text = f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
    return text if ratio is None else f"{text}   {ratio:.2f}"
