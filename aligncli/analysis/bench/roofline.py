"""A roofline: what each contender reaches, under what the machine's memory and its matrix product allow.

Arithmetic intensity is of the traffic that the operators cannot do without (work.py), so a contender that moves
more than that, deform_conv2d its columns, say, lies below the roof without touching it.
"""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes

from aligncli.analysis.bench.report import Report, Result
from aligncli.analysis.figures import INK, MUTED, clean_axes
from aligncli.analysis.pictures import class_colours

MARKERS = {"forward": "o", "forward+backward": "s"}
DECADES = 10.0  # beyond the outermost point, on either side


def name_colours(names: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """One for each name, RGB in 0..1."""
    distinct = list(dict.fromkeys(names))
    shades = class_colours(len(distinct))
    return {name: tuple(value / 255 for value in shade) for name, shade in zip(distinct, shades, strict=True)}


def roofline_points(report: Report) -> list[tuple[Result, float, float]]:
    """Results with FLOPs a byte, and GFLOP/s at their median time."""
    return [
        (result, result.intensity, result.flops_per_second / 1e9)
        for result in report.results
        if result.samples and result.intensity is not None
    ]


def draw_roofline(axes: Axes, report: Report, colours: dict[str, tuple[float, ...]]) -> None:
    """Points in the colours of their names, filled markers a part, under the measured roof."""
    points = roofline_points(report)
    assert points
    assert report.bandwidth is not None
    roof, slope = report.product.flops_per_second / 1e9, report.bandwidth / 1e9
    ridge = roof / slope
    left = min(ridge, *(x for _, x, _ in points)) / DECADES
    right = max(ridge, *(x for _, x, _ in points)) * DECADES
    axes.plot([left, ridge, right], [left * slope, roof, roof], color=INK, linewidth=1.4)
    axes.text(right, roof * 1.06, f"GEMM {roof:,.0f} GFLOP/s", ha="right", va="bottom", fontsize=8, color=INK)
    axes.text(left * 3, left * slope * 1.2, f"copy {slope:,.1f} GB/s", fontsize=8, color=MUTED, clip_on=True)
    for result, x, y in points:
        marker = MARKERS.get(result.part, "o")
        axes.plot(x, y, marker, color=colours[result.name], markersize=7, markeredgecolor="white")
    axes.set_xscale("log")
    axes.set_yscale("log")
    heights = [roof, *(y for *_, y in points)]
    axes.set_ylim(min(heights) / 3, max(heights) * 2)
    axes.set_xlabel("FLOP a byte", fontsize=9)
    axes.set_ylabel("GFLOP/s", fontsize=9)
    clean_axes(axes)
