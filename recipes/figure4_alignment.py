"""Figure 4: how well implicit RoIs and refined anchors agree, for the alignment variants of Table 4.

Its rows are Table 4's, so what that study trained is measured here and not trained again. Figures are IoUs in
percent: means, and shares of the confident locations. The paper draws distributions and gives no number.
"""

from __future__ import annotations

from aligncli.config import Claim, Study

from .table4_alignment import STUDY as TABLE_4

STUDY = Study(
    name="figure4",
    table="Figure 4",
    title="IoU between implicit RoIs and refined anchors, percent",
    metrics=("confident", "share >= .5", "share >= .7", "on objects", "all"),
    measured_by="alignment",
    rows=tuple(row.model_copy(update={"paper": {}}) for row in TABLE_4.rows),
    claims=(
        Claim(
            text="deformable convolutions learn better alignment than plain ones",
            weights=({"deform": 1, "conv": -1},),
            metric="confident",
        ),
        Claim(
            text="and stay far from RoIConv's",
            weights=({"roi_conv": 1, "deform": -1},),
            metric="confident",
        ),
    ),
    note="confident: ADM score above .2; on objects: refined anchors with IoU .5 or more to one; all: every location",
)
STUDIES = (STUDY,)
