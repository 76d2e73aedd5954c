"""How a study's rows are written: one difference on several scales, and the paper's figures in its own column order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aligncli.config import Recipe, Row, Scale

AP_COLUMNS = ("AP", "AP50", "APs", "APm", "APl")  # Tables 1, 2 and 3
AP75_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # Tables 4, 6 and 7
AP90_COLUMNS = ("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl")  # Table 5


def row(
    name: str,
    label: str,
    recipes: Mapping[Scale, Recipe],
    paper: Sequence[float] = (),
    columns: Sequence[str] = (),
    *,
    baseline: str = "",
    detail: str = "",
) -> Row:
    """A row from the recipes of its scales and the paper's figures, in the order of `columns`."""
    figures = dict(zip(columns, paper, strict=True))
    return Row(name=name, label=label, recipes=dict(recipes), paper=figures, baseline=baseline, detail=detail)


def varied(
    bases: Mapping[Scale, Recipe], suffix: str, summary: str, changes: Mapping[str, object]
) -> dict[Scale, Recipe]:
    """The same difference made to the base recipe of every scale; `suffix` tells its runs apart."""
    return {
        scale: base.changed({"name": f"{base.name}-{suffix}", "summary": summary, "paper": "", **changes})
        for scale, base in bases.items()
    }
