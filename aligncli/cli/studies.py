"""Which studies are the commands' own: `pilot` has two, `ablate` the others."""

from __future__ import annotations

PILOT, PILOT_ROI_CONV = "pilot", "pilot_roiconv"


def ablations() -> list[str]:
    """Names of the studies but the pilots, which have a command of their own."""
    from aligncli.catalog import study_names

    return [name for name in study_names() if name not in (PILOT, PILOT_ROI_CONV)]


def all_names(scale: str) -> tuple[str, ...]:
    """Every study but the pilots that has something to train at this scale."""
    from aligncli.catalog import load_study

    studies = map(load_study, ablations())
    return tuple(study.name for study in studies if any(scale in row.recipes for row in study.rows))
