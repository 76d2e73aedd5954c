"""The pilot experiments (sections 3.1 and 5.2, Tables 1 and 2): what one map costs, and what RoIConv gives back.

The tables' other rows are `aligndet_r50_wo_adm` (RetinaNet, P3-P7, AP 32.4) and `retinanet_r50_p4` (P4, AP 20.4).

At small scale the single map is P2, stride 4: anchors of 24 to 96 pixels over its implicit RoI of 12 keep the
paper's largest anchor over implicit RoI (96 / 12 = 8, paper 512 / 48). Objects are 16 to 112 pixels.
"""

from __future__ import annotations

from aligncli.config import (
    AnchorConfig,
    DenseDetectorConfig,
    FasterRCNNConfig,
    PostprocessConfig,
    Recipe,
    RetinaNetHeadConfig,
    RPNConfig,
    SGDConfig,
    ShapesConfig,
    SingleLevelConfig,
    StageConfig,
    StageHeadConfig,
    TwoFCHeadConfig,
)

from . import small
from .base import COCO, REPORT_SEED, TRAIN_SEED
from .retinanet_r50_p4 import RECIPE as RETINANET_R50_P4

FASTER_RCNN_R50_FPN = Recipe(
    name="faster_rcnn_r50_fpn",
    summary="Faster R-CNN, ResNet-50, P2-P5, two fully connected layers",
    paper="Table 1: AP 33.9",
    model=FasterRCNNConfig(),
    weights="imagenet",
    data=COCO,
    optimizer=SGDConfig(lr=0.02),  # its losses are means over samples, and its papers train it so
)

FASTER_RCNN_R50_C4 = FASTER_RCNN_R50_FPN.changed(
    {
        "name": "faster_rcnn_r50_c4",
        "summary": "Faster R-CNN, ResNet-50, C4 alone, stage 5 as RoI head",
        "paper": "Table 1: AP 31.6",
        "model.neck": StageConfig(level=4).model_dump(),
        "model.rpn.anchors.scales": (2.0, 4.0, 8.0, 16.0, 32.0),
        # Detectron's, for one level that has to hold the candidates of five
        "model.rpn.train_candidates": 12_000,
        "model.rpn.test_candidates": 6_000,
        "model.roi_head": StageHeadConfig().model_dump(),
    }
)

RETINANET_R50_P4_ROICONV = RETINANET_R50_P4.changed(
    {
        "name": "retinanet_r50_p4_roiconv",
        "summary": "RetinaNet, ResNet-50, P4 alone, 3x3 RoIConv before the towers",
        "paper": "Table 2: AP 25.4",
        "model.head.roi_conv": "before_tower",
    }
)

RETINANET_R50_P4_ROICONV_AFTER = RETINANET_R50_P4_ROICONV.changed(
    {
        "name": "retinanet_r50_p4_roiconv_after",
        "summary": "RetinaNet, ResNet-50, P4 alone, 3x3 RoIConv after each tower",
        "paper": "",
        "model.head.roi_conv": "after_tower",
    }
)

SHAPES = ShapesConfig(
    num_train=2500, min_size=16.0, max_size=112.0, fit_large=True, train_seed=TRAIN_SEED, val_seed=REPORT_SEED
)
P2 = SingleLevelConfig(level=2, channels=64, norm="group")
P2_ANCHORS = AnchorConfig(scales=(6.0, 12.0, 24.0), ratios=(1.0,))

RETINANET_SMALL_FPN = Recipe(
    name="retinanet_small_fpn",
    summary="RetinaNet on shapes, P3-P5, one anchor a cell",
    paper="Table 1 at small scale",
    model=DenseDetectorConfig(
        backbone=small.BACKBONE,
        neck=small.FPN,
        head=RetinaNetHeadConfig(
            anchors=small.ONE_ANCHOR, tower=small.TOWER, matcher=small.DPM.matcher, loss=small.LOSS
        ),
    ),
    weights="shapes",
    data=SHAPES,
    input=small.INPUT,
    optimizer=small.OPTIMIZER,
    schedule=small.SCHEDULE,
    evaluation=small.EVALUATION,
)

RETINANET_SMALL_P2 = RETINANET_SMALL_FPN.changed(
    {
        "name": "retinanet_small_p2",
        "summary": "RetinaNet on shapes, P2 alone, anchors of 24, 48 and 96 pixels",
        "paper": "Tables 1, 2 at small scale",
        "model.neck": P2.model_dump(),
        "model.head.anchors": P2_ANCHORS.model_dump(),
    }
)

RETINANET_SMALL_P2_ROICONV = RETINANET_SMALL_P2.changed(
    {
        "name": "retinanet_small_p2_roiconv",
        "summary": "RetinaNet on shapes, P2 alone, 3x3 RoIConv before the towers",
        "paper": "Table 2 at small scale",
        "model.head.roi_conv": "before_tower",
    }
)

RETINANET_SMALL_P2_ROICONV_AFTER = RETINANET_SMALL_P2_ROICONV.changed(
    {
        "name": "retinanet_small_p2_roiconv_after",
        "summary": "RetinaNet on shapes, P2 alone, 3x3 RoIConv after each tower",
        "model.head.roi_conv": "after_tower",
    }
)

# Proposals and samples in proportion to images of 128 pixels with at most six objects
SMALL_RPN = RPNConfig(
    num_samples=64,
    train_candidates=300,
    test_candidates=300,
    train_proposals=200,
    test_proposals=100,
)

# The paper's geometry at 3/4 of its sizes: P2 is the finest map, as in RetinaNet's single one; anchors of 24, 48, 96
# pixels are 6 strides wide (paper 8); a RoI is read from P4 as from the paper's, at 168 pixels for its 224.
FASTER_RCNN_SMALL_FPN = RETINANET_SMALL_FPN.changed(
    {
        "name": "faster_rcnn_small_fpn",
        "summary": "Faster R-CNN on shapes, P2-P4",
        "model": FasterRCNNConfig(
            backbone=small.BACKBONE,
            neck=small.FPN.model_copy(update={"levels": (2, 3, 4)}),
            rpn=SMALL_RPN.model_copy(update={"anchors": AnchorConfig(scales=(6.0,), ratios=(0.5, 1.0, 2.0))}),
            roi_head=TwoFCHeadConfig(channels=256, num_samples=64, canonical_scale=168.0),
            postprocess=PostprocessConfig(),
        ).model_dump(),
    }
)

FASTER_RCNN_SMALL_P2 = FASTER_RCNN_SMALL_FPN.changed(
    {
        "name": "faster_rcnn_small_p2",
        "summary": "Faster R-CNN on shapes, P2 alone",
        "model.neck": P2.model_dump(),
        "model.rpn.anchors.scales": P2_ANCHORS.scales,
        "model.rpn.train_candidates": 900,
        "model.rpn.test_candidates": 900,
    }
)

FASTER_RCNN_SMALL_C4 = FASTER_RCNN_SMALL_P2.changed(
    {
        "name": "faster_rcnn_small_c4",
        "summary": "Faster R-CNN on shapes, C4 alone, stage 5 as RoI head",
        "model.neck": StageConfig(level=4).model_dump(),
        "model.rpn.anchors.scales": (1.5, 3.0, 6.0),
        # The largest objects are 7 cells wide: 8x8 bins cost a third of 14x14 and miss nothing.
        "model.roi_head": StageHeadConfig(num_samples=64, resolution=8).model_dump(),
    }
)

RECIPES = (
    FASTER_RCNN_R50_FPN,
    FASTER_RCNN_R50_C4,
    RETINANET_R50_P4_ROICONV,
    RETINANET_R50_P4_ROICONV_AFTER,
    RETINANET_SMALL_FPN,
    RETINANET_SMALL_P2,
    RETINANET_SMALL_P2_ROICONV,
    RETINANET_SMALL_P2_ROICONV_AFTER,
    FASTER_RCNN_SMALL_FPN,
    FASTER_RCNN_SMALL_P2,
    FASTER_RCNN_SMALL_C4,
)
