"""Table 6: designs of RoIConv: kernel size, output channels, head, and 7x7-dagger."""

from __future__ import annotations

from aligncli.config import Claim, Recipe, Scale, Study

from . import small
from .aligndet_r50 import RECIPE as K7_R50
from .aligndet_r50_dagger import RECIPE as DAGGER_R50
from .aligndet_r50_head4 import RECIPE as HEAD4_R50
from .aligndet_small import RECIPE as SMALL
from .photo import RECIPE as PHOTO
from .retinanet_r50 import RECIPE as RETINANET_R50
from .rows import AP75_COLUMNS, row, varied
from .table3_aligndet import ALIGNDET, RETINANET
from .table6 import RECIPES as MORE_R50
from .table6 import SPEED_MS

BASES: dict[Scale, Recipe] = {"small": SMALL, "photo": PHOTO}
K3_R50, K5_R50 = MORE_R50
KERNEL, FINEST = "model.adm.alignment.kernel_size", "model.adm.alignment.finest_kernel_size"


def _design(suffix: str, summary: str, changes: dict[str, object]) -> dict[Scale, Recipe]:
    """The head of one 1x1 convolution, changed."""
    head = {"model.adm": small.ONE_CONV_ADM.model_dump()}
    return varied(BASES, suffix, f"Table 6, {summary}", head | changes)


HEAD4 = varied(BASES, "head4", "Table 6, 3x3 RoIConv and four 3x3 convolutions", {})
K3 = _design("k3", "3x3 RoIConv", {KERNEL: 3})
K5 = _design("k5", "5x5 RoIConv", {KERNEL: 5})
DAGGER = _design("dagger", "7x7-dagger", {KERNEL: 7, FINEST: 3})

# name, label, recipes, the paper's AP figures, its recipe in SPEED_MS
ROWS: tuple[tuple[str, str, dict[Scale, Recipe], tuple[float, ...]], ...] = (
    ("head4", "3x3, 256, four convs", {**HEAD4, "coco": HEAD4_R50}, (36.2, 56.1, 39.2, 19.2, 39.7, 48.5)),
    ("k3", "3x3, 1024, one conv", {**K3, "coco": K3_R50}, (36.7, 56.9, 40.4, 20.1, 40.4, 49.2)),
    ("k5", "5x5, 1024, one conv", {**K5, "coco": K5_R50}, (37.2, 57.1, 40.7, 20.6, 40.3, 49.9)),
    ("k7", "7x7, 1024, one conv", {**ALIGNDET, "coco": K7_R50}, (37.9, 57.7, 41.7, 21.5, 41.1, 50.8)),
    ("dagger", "7x7-dagger, 1024, one conv", {**DAGGER, "coco": DAGGER_R50}, (37.6, 57.3, 41.6, 20.7, 41.0, 50.4)),
    ("retinanet", "RetinaNet", {**RETINANET, "coco": RETINANET_R50}, (35.7, 55.0, 38.5, 18.9, 38.9, 46.3)),
)


def _row(name: str, label: str, recipes: dict[Scale, Recipe], figures: tuple[float, ...]):
    speed = SPEED_MS[recipes["coco"].name]
    baseline = "" if name == "retinanet" else "retinanet"
    return row(name, label, recipes, (*figures, speed), (*AP75_COLUMNS, "ms"), baseline=baseline)


STUDY = Study(
    name="kernel",
    table="Table 6",
    title="RoIConv designs (channels at the paper's scale; 128 at the small one)",
    metrics=("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl"),
    rows=tuple(_row(*values) for values in ROWS),
    claims=(
        Claim(text="performance grows with the kernel: 3 < 5 < 7", weights=({"k5": 1, "k3": -1}, {"k7": 1, "k5": -1})),
        Claim(
            text="exact boxes (AP90) gain with it: 3 < 7",
            weights=({"k7": 1, "k3": -1},),
            metric="AP90",
        ),
        Claim(text="the 3x3 variant improves on RetinaNet", weights=({"k3": 1, "retinanet": -1},)),
        Claim(text="so does 7x7-dagger", weights=({"dagger": 1, "retinanet": -1},)),
        Claim(
            text="1024 channels and a 1x1 convolution outperform 256 and four 3x3 convolutions",
            weights=({"k3": 1, "head4": -1},),
        ),
        Claim(
            text="the table, not the text: 256 and four convolutions beat RetinaNet",
            weights=({"head4": 1, "retinanet": -1},),
        ),
        Claim(text="the table, not the text: 7x7-dagger is above 5x5", weights=({"dagger": 1, "k5": -1},)),
    ),
)
STUDIES = (STUDY,)
