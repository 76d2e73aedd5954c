"""Table 5: which IoU makes an anchor positive, in the DPM and in the ADM."""

from __future__ import annotations

from aligncli.config import Claim, Recipe, Scale, Study

from .aligndet_r50_head4 import RECIPE as COCO
from .aligndet_small import RECIPE as SMALL
from .photo import RECIPE as PHOTO
from .rows import AP90_COLUMNS, row, varied

BASES: dict[Scale, Recipe] = {"small": SMALL, "coco": COCO, "photo": PHOTO}
# (DPM fg, bg), (ADM fg, bg), the paper's figures
ROWS = (
    ((0.5, 0.4), (0.5, 0.4), (34.2, 55.8, 36.3, 7.5, 18.5, 37.4, 45.7)),
    ((0.5, 0.4), (0.6, 0.6), (35.6, 55.9, 38.3, 9.7, 19.5, 38.5, 47.2)),
    ((0.5, 0.4), (0.7, 0.7), (35.5, 55.1, 38.6, 10.4, 19.1, 38.6, 47.3)),
    ((0.4, 0.3), (0.6, 0.6), (36.0, 56.6, 38.5, 10.2, 19.5, 39.2, 48.2)),
    ((0.4, 0.3), (0.7, 0.7), (36.2, 56.1, 39.2, 11.3, 19.2, 39.7, 48.5)),
)
LOWEST = "dpm0.5_adm0.5"


def _row(dpm: tuple[float, float], adm: tuple[float, float], paper: tuple[float, ...]):
    name = f"dpm{dpm[0]:g}_adm{adm[0]:g}"
    label = f"DPM {dpm[0]:g}/{dpm[1]:g}, ADM {adm[0]:g}/{adm[1]:g}"
    changes: dict[str, object] = {
        "model.dpm.matcher.foreground": dpm[0],
        "model.dpm.matcher.background": dpm[1],
        "model.adm.matcher.foreground": adm[0],
        "model.adm.matcher.background": adm[1],
    }
    baseline = "" if name == LOWEST else LOWEST
    recipes = varied(BASES, name, f"Table 5, {label}", changes)
    return row(name, label, recipes, paper, AP90_COLUMNS, baseline=baseline)


STUDY = Study(
    name="assignment",
    table="Table 5",
    title="Label assignment of DPM and ADM (foreground / background IoU)",
    metrics=AP90_COLUMNS,
    rows=tuple(_row(*values) for values in ROWS),
    claims=(
        Claim(
            text="more positives for the DPM help: .4/.3 above .5/.4",
            weights=({"dpm0.4_adm0.6": 1, "dpm0.5_adm0.6": -1}, {"dpm0.4_adm0.7": 1, "dpm0.5_adm0.7": -1}),
        ),
        Claim(
            text="an ADM matched at .5/.4 is the worst",
            weights=({"dpm0.5_adm0.6": 1, "dpm0.5_adm0.5": -1}, {"dpm0.5_adm0.7": 1, "dpm0.5_adm0.5": -1}),
        ),
        Claim(
            text="raising the ADM from .6 to .7 improves exact boxes (AP90)",
            weights=({"dpm0.4_adm0.7": 1, "dpm0.4_adm0.6": -1},),
            metric="AP90",
        ),
    ),
)
STUDIES = (STUDY,)
