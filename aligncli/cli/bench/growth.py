"""What `aligncli bench train --vary` shows: one table and one picture of how a step grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aligncli.cli.bench import shared

if TYPE_CHECKING:
    from aligncli.analysis.bench.growth import Growth, Line
    from aligncli.analysis.bench.train_report import TrainReport
    from aligncli.cli.render import Output


def show(growths: Sequence[Growth], reports: Sequence[TrainReport], output: Output, plot: Path | None) -> None:
    """Everything that was asked for."""
    first = reports[0]
    output.heading("growth of training steps", "all but one quantity as asked for")
    output.fields(shared.common_conditions(first))
    output.table(
        ("varied", "step of", "ms", "images/s", "ratio", "peak MB", "ratio"),
        [row for growth in growths for row in growth_rows(growth)],
        text_columns=2,
    )
    output.line(f"ratio: of medians, and of peak memory, to {first.peer}")
    for growth in growths:
        for line in growth.lines:
            output.line(f"{line.name}: {describe_fit(growth, line)}")
    for report in reports:
        for result in report.results:
            if result.note:
                output.line(f"{result.name}: {result.note}")
    shared.show_if_busy(output, min(reports, key=lambda report: report.share_of_processor()))
    output.data({"bench": "growth", "growths": [growth.to_json() for growth in growths]})
    if plot is not None:
        from aligncli.analysis.bench.growth_plot import plot_growth

        shared.save_picture(plot, plot_growth(growths))
        output.line(f"picture: {plot}")


def growth_rows(growth: Growth) -> list[tuple[str, ...]]:
    """Quantity and value, detector, ms, images a second, ratio to the peer, peak MB and their ratio."""
    rows = []
    for value, report in zip(growth.sweep.values, growth.reports, strict=True):
        for result in report.results:
            timed = bool(result.samples)
            rows.append(
                (
                    f"{growth.sweep.quantity} {value:,}",
                    result.name,
                    shared.milliseconds(result.seconds.median) if timed else "-",
                    f"{result.images_per_second:.3g}" if timed else "-",
                    shared.ratio(report.ratio_to_peer(result)),
                    shared.megabytes(result.peak_memory),
                    shared.ratio(report.memory_ratio(result)),
                )
            )
    return rows


def describe_fit(growth: Growth, line: Line) -> str:
    """`time grows as size^1.92, peak memory as size^1.40`."""
    seconds, peak_memory = growth.exponents(line)
    parts = [
        f"{what} as {growth.sweep.quantity}^{power:.2f}"
        for what, power in (("time", seconds), ("peak memory", peak_memory))
        if power is not None
    ]
    return f"best fit: {', '.join(parts)}" if parts else "not enough values to tell"
