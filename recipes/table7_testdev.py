"""Table 7: AlignDet and other one-stage detectors on COCO's test-dev, 1.5 times the schedule and scale jitter.

AlignDet's and RetinaNet's rows are run; the others are cited, as the paper prints them.
"""

from __future__ import annotations

from aligncli.config import Claim, Recipe, Row, Study

from .aligndet_x101 import RECIPE as ALIGNDET_X101
from .retinanet_x101 import RECIPE as RETINANET_X101
from .rows import AP75_COLUMNS, row

ALIGNDET_R101 = ALIGNDET_X101.changed(
    {
        "name": "aligndet_r101_testdev",
        "summary": "AlignDet, ResNet-101, 7x7 RoIConv 1024, 1.5x schedule",
        "paper": "Table 7: AP 42.0 (test-dev)",
        "model.backbone.name": "resnet101",
    }
)
RETINANET_R101 = RETINANET_X101.changed(
    {
        "name": "retinanet_r101_testdev",
        "summary": "RetinaNet, ResNet-101, nine anchors a cell, 1.5x schedule",
        "paper": "Table 7: AP 39.1 (test-dev)",
        "model.backbone.name": "resnet101",
    }
)
RECIPES = (ALIGNDET_R101, RETINANET_R101)
RUN: dict[str, Recipe] = {
    "retinanet_r101": RETINANET_R101,
    "aligndet_r101": ALIGNDET_R101,
    "retinanet_x101": RETINANET_X101,
    "aligndet_x101": ALIGNDET_X101,
}
BASELINES = {"aligndet_r101": "retinanet_r101", "aligndet_x101": "retinanet_x101"}

HOURGLASS = "Hourglass-104, 511"
R101, X101, X101_64 = (f"{name} FPN, 800" for name in ("ResNet-101", "ResNeXt-101-32x8d", "ResNeXt-101-64x4d"))
# GPUs: M is an M40 or Titan X (Maxwell); P a P100, Titan X (Pascal), Titan Xp or 1080Ti
FLIPPED, FLIPPED_SOFT = "P, flip test", "P, flip test, soft NMS"
INFERRED = "P, inferred from RetinaNet's"

# name, label, backbone and input size, ms, its GPU and other marks, the paper's figures
ROWS: tuple[tuple[str, str, str, float | None, str, tuple[float, ...]], ...] = (
    ("yolov3", "YOLOv3 [20]", "DarkNet-53, 608", 51.0, "M", (33.0, 57.9, 34.4, 18.3, 35.4, 41.9)),
    ("ssd", "SSD [18, 6]", "ResNet-101, 513", 125.0, "M", (31.2, 50.4, 33.3, 10.2, 34.5, 49.8)),
    ("dssd", "DSSD [6]", "ResNet-101, 513", 156.0, "M", (33.2, 53.3, 35.2, 13.0, 35.4, 51.1)),
    ("refinedet", "RefineDet [27]", "ResNet-101, 512", None, "", (36.4, 57.5, 39.5, 16.6, 39.9, 51.4)),
    ("cornernet", "CornerNet [14]", HOURGLASS, 300.0, FLIPPED_SOFT, (40.5, 56.5, 43.1, 19.4, 42.7, 53.9)),
    ("extremenet", "ExtremeNet [29]", HOURGLASS, 322.0, FLIPPED_SOFT, (40.1, 55.3, 43.2, 20.3, 43.2, 53.1)),
    ("centernet_triplets", "CenterNet [5]", HOURGLASS, 340.0, FLIPPED_SOFT, (44.9, 62.4, 48.1, 25.6, 47.4, 57.4)),
    ("centernet_points", "CenterNet [28]", HOURGLASS, 128.0, FLIPPED, (42.1, 61.1, 45.9, 24.1, 45.5, 52.8)),
    ("retinanet_r101", "RetinaNet R101", R101, 104.0, "P", (39.1, 59.1, 42.3, 21.8, 42.7, 50.2)),
    ("foveabox_r101", "FoveaBox R101 [13]", R101, None, "", (40.6, 60.1, 43.5, 23.3, 45.2, 54.5)),
    ("fcos_r101", "FCOS R101 [23]", R101, None, "", (41.0, 60.7, 44.1, 24.0, 44.1, 51.0)),
    ("fsaf_r101", "FSAF R101 [30]", R101, 109.0, INFERRED, (40.9, 61.5, 44.0, 24.0, 44.2, 51.3)),
    ("rpdet_r101", "RPDet R101 [26]", R101, None, "", (41.0, 62.9, 44.3, 23.6, 44.1, 51.7)),
    ("aligndet_r101", "AlignDet R101", R101, 110.0, "P", (42.0, 62.4, 46.5, 24.6, 44.8, 53.3)),
    ("retinanet_x101", "RetinaNet X101", X101, 177.0, "P", (40.8, 61.1, 44.1, 24.1, 44.2, 51.2)),
    ("foveabox_x101", "FoveaBox X101 [13]", X101, None, "", (42.1, 61.9, 45.2, 24.9, 46.8, 55.6)),
    ("fcos_x101", "FCOS X101 [23]", X101, None, "", (42.1, 62.1, 45.2, 25.6, 44.9, 52.0)),
    ("fsaf_x101", "FSAF X101-64x4d [30]", X101_64, 188.0, INFERRED, (42.9, 63.8, 46.3, 26.6, 46.2, 52.7)),
    ("aligndet_x101", "AlignDet X101", X101, 180.0, "P", (44.1, 64.7, 48.9, 26.9, 47.0, 54.7)),
)


def _row(name: str, label: str, setting: str, ms: float | None, marks: str, figures: tuple[float, ...]) -> Row:
    speed, columns = ((), AP75_COLUMNS) if ms is None else ((ms,), (*AP75_COLUMNS, "ms"))
    return row(
        name,
        label,
        {"coco": RUN[name]} if name in RUN else {},
        (*figures, *speed),
        columns,
        baseline=BASELINES.get(name, ""),
        detail=setting if ms is None else f"{setting}, {ms:.0f} ms {marks}",
    )


SAME_BACKBONE = tuple({name: 1.0, baseline: -1.0} for name, baseline in BASELINES.items())
STUDY = Study(
    name="testdev",
    table="Table 7",
    title="AlignDet against other one-stage detectors on test-dev",
    metrics=AP75_COLUMNS,
    submits=True,
    rows=tuple(_row(*values) for values in ROWS),
    claims=(
        Claim(text="AlignDet beats RetinaNet on the same backbone", weights=SAME_BACKBONE),
        Claim(text="and in AP75, which needs precise boxes", weights=SAME_BACKBONE, metric="AP75"),
    ),
    note=(
        "The paper's figures are test-dev's; ours are minival's (val2017), because only COCO's server scores "
        "test-dev. `aligncli eval RUN --split test --data COCO --save FILE.json` writes what it takes."
    ),
)
STUDIES = (STUDY,)
