"""Table 3: AlignDet against RetinaNet with nine anchors, and against itself without the ADM."""

from __future__ import annotations

from aligncli.config import Claim, Recipe, Scale, Study

from . import small
from .aligndet_r50 import RECIPE as ALIGNDET_R50
from .aligndet_r50_wo_adm import RECIPE as WO_ADM_R50
from .aligndet_r101 import RECIPE as ALIGNDET_R101
from .aligndet_small import RECIPE as SMALL
from .photo import RECIPE as PHOTO
from .retinanet_r50 import RECIPE as RETINANET_R50
from .retinanet_r101 import RECIPE as RETINANET_R101
from .retinanet_small import MODEL as NINE_ANCHORS
from .rows import AP_COLUMNS, row, varied

BASES: dict[Scale, Recipe] = {"small": SMALL, "photo": PHOTO}
# "AlignDet w/o ADM is essentially a RetinaNet with a single anchor" (section 5.3), with the DPM's thresholds
ONE_ANCHOR = NINE_ANCHORS.model_copy(update={"head": small.DPM})


def _with_model(suffix: str, summary: str, model: dict[str, object]) -> dict[Scale, Recipe]:
    """Another detector on each base's own pyramid."""
    recipes: dict[Scale, Recipe] = {}
    for scale, base in BASES.items():
        changes = {"model": model, "model.neck": base.model_dump()["model"]["neck"]}
        recipes |= varied({scale: base}, suffix, summary, changes)
    return recipes


RETINANET = _with_model("retinanet", "Table 3, RetinaNet with nine anchors a cell", NINE_ANCHORS.model_dump())
WO_ADM = _with_model("wo_adm", "Table 3, AlignDet without its ADM", ONE_ANCHOR.model_dump())
ALIGNDET = varied(BASES, "k7", "Table 3, AlignDet, 7x7 RoIConv", {"model.adm": small.ONE_CONV_ADM.model_dump()})
WO_ADM_R101 = WO_ADM_R50.changed(
    {
        "name": "aligndet_r101_wo_adm",
        "summary": "AlignDet without its ADM, ResNet-101",
        "paper": "Table 3: AP 34.5",
        "model.backbone.name": "resnet101",
    }
)
RECIPES = (WO_ADM_R101,)

# name, label, recipes, the paper's figures
ROWS: tuple[tuple[str, str, dict[Scale, Recipe], tuple[float, ...]], ...] = (
    ("retinanet", "RetinaNet, 9 anchors", {**RETINANET, "coco": RETINANET_R50}, (35.7, 55.0, 18.9, 38.9, 46.3)),
    ("retinanet_r101", "RetinaNet R101, 9 anchors", {"coco": RETINANET_R101}, (37.8, 57.5, 20.2, 41.1, 49.2)),
    ("wo_adm", "AlignDet w/o ADM, 1 anchor", {**WO_ADM, "coco": WO_ADM_R50}, (32.4, 52.9, 17.5, 35.9, 43.0)),
    ("wo_adm_r101", "AlignDet w/o ADM R101, 1 anchor", {"coco": WO_ADM_R101}, (34.5, 55.7, 18.1, 38.4, 45.6)),
    ("aligndet", "AlignDet, 1 anchor", {**ALIGNDET, "coco": ALIGNDET_R50}, (37.9, 57.7, 21.5, 41.1, 50.8)),
    ("aligndet_r101", "AlignDet R101, 1 anchor", {"coco": ALIGNDET_R101}, (39.8, 60.0, 22.6, 43.4, 52.8)),
)
BASELINES = {
    "retinanet": "wo_adm",
    "aligndet": "wo_adm",
    "retinanet_r101": "wo_adm_r101",
    "aligndet_r101": "wo_adm_r101",
}
STUDY = Study(
    name="aligndet",
    table="Table 3",
    title="AlignDet against RetinaNet (ResNet-50 at the paper's scale)",
    metrics=AP_COLUMNS,
    rows=tuple(row(*values, AP_COLUMNS, baseline=BASELINES.get(values[0], "")) for values in ROWS),
    claims=(
        Claim(text="AlignDet beats RetinaNet with nine anchors", weights=({"aligndet": 1, "retinanet": -1},)),
        Claim(text="RetinaNet with nine anchors beats one without ADM", weights=({"retinanet": 1, "wo_adm": -1},)),
        Claim(text="the ADM improves on the DPM alone", weights=({"aligndet": 1, "wo_adm": -1},)),
    ),
)
STUDIES = (STUDY,)
