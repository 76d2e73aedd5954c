"""Dense heads on predefined anchors: each as AlignDet's DPM (section 4.3), and the detectors of Table 7 among them.

SSD and RefineDet have the paper's training and post-processing instead of their own, so that models compare.
"""

from __future__ import annotations

from aligncli.config import (
    AnchorConfig,
    DenseDetectorConfig,
    FPNConfig,
    MetaAnchorDPMConfig,
    MetaAnchorHeadConfig,
    RefineDetConfig,
    RPNDPMConfig,
    RPNLossConfig,
    SSDDPMConfig,
    SSDHeadConfig,
    StagesConfig,
    TransferConfig,
)

from . import small
from .aligndet_r50 import RECIPE as ALIGNDET_R50
from .aligndet_small import RECIPE as ALIGNDET
from .retinanet_r50 import RECIPE as RETINANET_R50
from .retinanet_small import RECIPE as RETINANET

SMALL_RPN = RPNDPMConfig(
    anchors=small.ONE_ANCHOR,
    channels=small.FPN.channels,
    loss=RPNLossConfig(smooth_l1_beta=small.LOSS.smooth_l1_beta, box_stds=small.LOSS.box_stds),
)
SMALL_SSD = SSDDPMConfig(anchors=small.ONE_ANCHOR)
SMALL_METAANCHOR = MetaAnchorDPMConfig(anchors=small.ONE_ANCHOR, tower=small.TOWER, loss=small.LOSS)

# SSD's six anchors and RefineDet's three, of the small scale's size
SIX_ANCHORS = AnchorConfig(
    scales=(small.ANCHOR_SCALE,),
    ratios=SSDHeadConfig().anchors.ratios,
    square_scales=(small.ANCHOR_SCALE * 2**0.5,),
)
THREE_ANCHORS = AnchorConfig(scales=(small.ANCHOR_SCALE,), ratios=(0.5, 1.0, 2.0))

SSD_SMALL = DenseDetectorConfig(
    backbone=small.BACKBONE,
    neck=small.FPN.model_copy(update={"top_down": False}),
    head=SSDHeadConfig(anchors=SIX_ANCHORS),
)
METAANCHOR_SMALL = DenseDetectorConfig(
    backbone=small.BACKBONE,
    neck=small.FPN,
    head=MetaAnchorHeadConfig(anchors=small.NINE_ANCHORS, tower=small.TOWER, loss=small.LOSS),
)
REFINEDET_SMALL = RefineDetConfig(
    backbone=small.BACKBONE,
    neck=StagesConfig(levels=small.FPN.levels, channels=small.FPN.channels, norm="group"),
    transfer=TransferConfig(channels=small.FPN.channels, norm="group"),
    anchors=THREE_ANCHORS,
    min_side=small.MIN_SIDE,
)
SSD_R50 = DenseDetectorConfig(neck=FPNConfig(top_down=False), head=SSDHeadConfig())

RECIPES = (
    ALIGNDET.changed(
        {
            "name": "aligndet_small_rpn",
            "summary": "AlignDet on shapes, RPN as DPM",
            "paper": "",
            "model.dpm": SMALL_RPN.model_dump(),
        }
    ),
    ALIGNDET.changed(
        {
            "name": "aligndet_small_ssd",
            "summary": "AlignDet on shapes, SSD as DPM",
            "paper": "",
            "model.dpm": SMALL_SSD.model_dump(),
        }
    ),
    ALIGNDET.changed(
        {
            "name": "aligndet_small_metaanchor",
            "summary": "AlignDet on shapes, MetaAnchor as DPM",
            "paper": "",
            "model.dpm": SMALL_METAANCHOR.model_dump(),
        }
    ),
    ALIGNDET_R50.changed(
        {
            "name": "aligndet_r50_rpn",
            "summary": "AlignDet, ResNet-50, RPN as DPM",
            "paper": "",
            "model.dpm": "rpn",
        }
    ),
    ALIGNDET_R50.changed(
        {
            "name": "aligndet_r50_ssd",
            "summary": "AlignDet, ResNet-50, SSD as DPM",
            "paper": "",
            "model.dpm": "ssd",
        }
    ),
    ALIGNDET_R50.changed(
        {
            "name": "aligndet_r50_metaanchor",
            "summary": "AlignDet, ResNet-50, MetaAnchor as DPM",
            "paper": "",
            "model.dpm": "metaanchor",
        }
    ),
    RETINANET.changed(
        {
            "name": "ssd_small",
            "summary": "SSD on shapes, six anchors a cell",
            "paper": "",
            "model": SSD_SMALL.model_dump(),
        }
    ),
    RETINANET.changed(
        {
            "name": "metaanchor_small",
            "summary": "MetaAnchor on shapes, RetinaNet's nine anchors a cell",
            "paper": "",
            "model": METAANCHOR_SMALL.model_dump(),
        }
    ),
    RETINANET.changed(
        {
            "name": "refinedet_small",
            "summary": "RefineDet on shapes, three anchors a cell",
            "paper": "",
            "model": REFINEDET_SMALL.model_dump(),
        }
    ),
    RETINANET_R50.changed(
        {
            "name": "ssd_r50",
            "summary": "SSD, ResNet-50, at 800 pixels instead of its 512",
            "paper": "",
            "model": SSD_R50.model_dump(),
        }
    ),
    RETINANET_R50.changed(
        {
            "name": "refinedet_r50",
            "summary": "RefineDet, ResNet-50, at 800 pixels instead of its 512",
            "paper": "",
            "model": RefineDetConfig().model_dump(),
        }
    ),
)
