"""Tables 1 and 2: what multi-scale features hide, and what RoIConv with predefined anchors repairs."""

from __future__ import annotations

from collections.abc import Mapping

from aligncli.config import Claim, Recipe, Scale, Study

from .aligndet_r50_wo_adm import RECIPE as FPN_R50
from .photo import RECIPE as PHOTO
from .pilots import RECIPES
from .retinanet_r50_p4 import RECIPE as P4_R50
from .rows import AP_COLUMNS, row

BY_NAME = {recipe.name: recipe for recipe in RECIPES}


# One's own photographs: as at small scale, with a level more for objects of up to 192 pixels. The single level is
# P3, so the largest anchor is again eight times its implicit RoI (192 / 24).
PHOTO_SETTING = PHOTO.model_dump(include={"data", "input", "evaluation"})
PHOTO_LEVEL: dict[str, object] = {"model.neck.level": 3}
PHOTO_SCALES = (3.0, 6.0, 12.0, 24.0)


def _scales(small: str, coco: Recipe, photo: Mapping[str, object]) -> dict[Scale, Recipe]:
    own = BY_NAME[small]
    name = small.replace("_small", "_photo").replace("_p2", "_p3")
    on_photos = own.changed({"name": name, "summary": f"{own.summary} (photos)", **PHOTO_SETTING, **photo})
    return {"small": own, "coco": coco, "photo": on_photos}


TWO_STAGE_FPN = _scales("faster_rcnn_small_fpn", BY_NAME["faster_rcnn_r50_fpn"], {"model.neck.levels": (2, 3, 4, 5)})
TWO_STAGE_ONE = _scales(
    "faster_rcnn_small_p2",
    BY_NAME["faster_rcnn_r50_c4"],
    {**PHOTO_LEVEL, "model.rpn.anchors.scales": PHOTO_SCALES},
)
ONE_STAGE_FPN = _scales(
    "retinanet_small_fpn", FPN_R50, {"model.neck.levels": PHOTO.model_dump()["model"]["neck"]["levels"]}
)
PHOTO_ONE: dict[str, object] = {**PHOTO_LEVEL, "model.head.anchors.scales": PHOTO_SCALES}
ONE_STAGE_ONE = _scales("retinanet_small_p2", P4_R50, PHOTO_ONE)
BEFORE_TOWER = _scales("retinanet_small_p2_roiconv", BY_NAME["retinanet_r50_p4_roiconv"], PHOTO_ONE)
AFTER_TOWER = _scales("retinanet_small_p2_roiconv_after", BY_NAME["retinanet_r50_p4_roiconv_after"], PHOTO_ONE)

P4_FIGURES = (20.4, 37.4, 7.3, 24.6, 32.3)
ONE_LEVEL = "one level: P4 and C4 at the paper's scale; P2 (small) and P3 (photo) with the top-down path"

PILOT = Study(
    name="pilot",
    table="Table 1",
    title="One level instead of a pyramid: two-stage against one-stage",
    metrics=AP_COLUMNS,
    rows=(
        row("faster_rcnn", "Faster R-CNN, pyramid", TWO_STAGE_FPN, (33.9, 56.9, 17.8, 37.7, 45.8), AP_COLUMNS),
        row(
            "faster_rcnn_one",
            "Faster R-CNN, one level",
            TWO_STAGE_ONE,
            (31.6, 53.1, 13.2, 35.6, 47.1),
            AP_COLUMNS,
            baseline="faster_rcnn",
        ),
        row("retinanet", "RetinaNet, pyramid", ONE_STAGE_FPN, (32.4, 52.9, 17.5, 35.9, 43.0), AP_COLUMNS),
        row(
            "retinanet_one",
            "RetinaNet, one level",
            ONE_STAGE_ONE,
            P4_FIGURES,
            AP_COLUMNS,
            baseline="retinanet",
        ),
    ),
    claims=(
        Claim(text="one level costs the one-stage detector AP", weights=({"retinanet": 1, "retinanet_one": -1},)),
        Claim(
            text="more than four times what it costs the two-stage one",
            weights=({"retinanet": 1, "retinanet_one": -1, "faster_rcnn": -4, "faster_rcnn_one": 4},),
        ),
    ),
    note=ONE_LEVEL,
)
ROI_CONV = Study(
    name="pilot_roiconv",
    table="Table 2",
    title="One level, with RoIConv on the predefined anchors",
    metrics=AP_COLUMNS,
    rows=(
        row("retinanet_one", "RetinaNet, one level", ONE_STAGE_ONE, P4_FIGURES, AP_COLUMNS),
        row(
            "before",
            "+ RoIConv before the tower",
            BEFORE_TOWER,
            (25.4, 42.2, 8.6, 28.6, 40.9),
            AP_COLUMNS,
            baseline="retinanet_one",
        ),
        row("after", "+ RoIConv after the tower (not the paper's)", AFTER_TOWER, baseline="retinanet_one"),
    ),
    claims=(Claim(text="RoIConv repairs the single-level detector", weights=({"before": 1, "retinanet_one": -1},)),),
    note=ONE_LEVEL,
)
STUDIES = (PILOT, ROI_CONV)
