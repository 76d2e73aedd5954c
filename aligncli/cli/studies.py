"""Which studies are the commands' own: `pilot` has two, `ablate` the others, `reproduce` all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aligncli.config import Study

PILOT, PILOT_ROI_CONV = "pilot", "pilot_roiconv"


def all_studies() -> list[Study]:
    """Tables in the paper's order, then the figure that is measured on the runs of one."""
    from aligncli.catalog import load_study, study_names

    return sorted(map(load_study, study_names()), key=lambda study: study.measured_by == "alignment")


def ablations() -> list[Study]:
    """All but the pilots, which have a command of their own."""
    return [study for study in all_studies() if study.name not in (PILOT, PILOT_ROI_CONV)]


def names_at(scale: str, studies: Iterable[Study]) -> list[str]:
    """Names of those that have something to train at this scale."""
    return [study.name for study in studies if any(scale in row.recipes for row in study.rows)]
