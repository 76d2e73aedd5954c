"""Table 4: four ways to align features with learned anchors, at equal parameters (Figure 3).

The second study repeats it with the 1x1 head, which denies the plain convolution its receptive field: it
shows what alignment alone is worth, and is not the paper's.
"""

from __future__ import annotations

from aligncli.config import Claim, Recipe, Row, Scale, Study

from .aligndet_r50_head4 import RECIPE as COCO
from .aligndet_small import RECIPE as SMALL
from .photo import RECIPE as PHOTO
from .rows import AP75_COLUMNS, row, varied

BASES: dict[Scale, Recipe] = {"small": SMALL, "coco": COCO, "photo": PHOTO}
VARIANTS = {
    "conv": ("(a) Conv", (35.2, 54.7, 37.9, 19.4, 38.4, 47.7)),
    "deform": ("(b) Deform Conv", (35.3, 55.0, 38.0, 19.0, 38.7, 47.1)),
    "guided": ("(c) Anchor Guided Deform Conv", (35.2, 54.8, 37.9, 18.5, 38.7, 47.3)),
    "roi_conv": ("(d) RoI Conv", (36.2, 56.1, 39.2, 19.2, 39.7, 48.5)),
}
ONE_CONV: dict[str, object] = {
    "model.adm.num_convs": 1,
    "model.adm.conv_kernel_size": 1,
    "model.adm.predictor_kernel_size": 1,
}
BEATS_ALL = tuple({"roi_conv": 1.0, other: -1.0} for other in ("conv", "deform", "guided"))


def _rows(suffix: str, label_suffix: str, changes: dict[str, object], *, papers: bool) -> tuple[Row, ...]:
    """A row a variant."""
    rows = []
    for kind, (label, paper) in VARIANTS.items():
        aligned = {"model.adm.alignment": {"kind": kind, "kernel_size": 3}, **changes}
        recipes = varied(BASES, f"{kind}{suffix}", f"Table 4 {label}{label_suffix}", aligned)
        figures, columns = (paper, AP75_COLUMNS) if papers else ((), ())
        baseline = "" if kind == "conv" else "conv"
        rows.append(row(kind, label + label_suffix, recipes, figures, columns, baseline=baseline))
    return tuple(rows)


STUDY = Study(
    name="alignment",
    table="Table 4",
    title="Alignment variants, ADM head of four 3x3 convolutions",
    metrics=AP75_COLUMNS,
    rows=_rows("", "", {}, papers=True),
    claims=(
        Claim(text="RoIConv beats every other alignment at equal parameters", weights=BEATS_ALL),
        Claim(text="also where boxes must be exact (AP75)", weights=BEATS_ALL, metric="AP75"),
    ),
)
ONE_CONV_STUDY = Study(
    name="alignment_1x1",
    table="Table 4 with another head",
    title="Alignment variants, ADM head of one 1x1 convolution (not the paper's)",
    metrics=AP75_COLUMNS,
    rows=_rows("-1x1", ", 1x1 head", ONE_CONV, papers=False),
    claims=(Claim(text="without a head that looks around, alignment is worth more still", weights=BEATS_ALL),),
)
STUDIES = (STUDY, ONE_CONV_STUDY)
