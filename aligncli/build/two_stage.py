"""Faster R-CNN: torchvision's parts with the recipe's numbers."""

from typing import Any, cast

from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from aligncli.build.parts import build_anchors
from aligncli.config import FasterRCNNConfig, PostprocessConfig, RPNConfig, StageHeadConfig, TwoFCHeadConfig
from aligncli.errors import RecipeError
from aligncli.models.backbone import Backbone
from aligncli.models.faster_rcnn import (
    BoxPredictor,
    CellAnchors,
    FasterRCNN,
    ProposalHead,
    StageHead,
    two_fc_head,
)
from aligncli.models.fpn import BackboneStage, FeaturePyramid
from aligncli.models.roi_pool import RoIPool


def build_faster_rcnn(
    part: FasterRCNNConfig,
    *,
    num_classes: int,
    backbone: Backbone,
    neck: FeaturePyramid | BackboneStage,
    **shared: Any,
) -> FasterRCNN:
    """A two-stage detector; `shared` is what every Detector takes. In the C4 variant `backbone` stops at C4."""
    pool, head, channels = _build_roi_head(part.roi_head, backbone, neck)
    predictor = BoxPredictor(channels, num_classes)
    return FasterRCNN(
        backbone=backbone,
        neck=neck,
        rpn=_build_rpn(part.rpn, neck),
        roi_heads=_build_roi_heads(part.roi_head, part.postprocess, pool, head, predictor),
        box_stds=part.roi_head.box_stds,
        num_classes=num_classes,
        **shared,
    )


def _build_roi_head(
    part: TwoFCHeadConfig | StageHeadConfig, backbone: Backbone, neck: FeaturePyramid | BackboneStage
) -> tuple[RoIPool, nn.Module, int]:
    """RoIAlign, what follows it, and the channels that the predictor sees."""
    match part:
        case TwoFCHeadConfig():
            # A single map serves all RoIs, however coarse it is.
            strides = [stride for stride in neck.strides if stride <= 2**part.coarsest_level] or neck.strides[:1]
            pool = RoIPool(
                strides,
                resolution=part.resolution,
                sampling_ratio=part.sampling_ratio,
                canonical_scale=part.canonical_scale,
                canonical_level=part.canonical_level,
            )
            return pool, two_fc_head(neck.channels * part.resolution**2, part.channels), part.channels
        case StageHeadConfig():
            (stride,) = neck.strides
            pool = RoIPool((stride,), resolution=part.resolution, sampling_ratio=part.sampling_ratio)
            if not isinstance(backbone, Backbone):
                raise RecipeError(
                    "model.roi_head 'stage' runs the backbone's own stages, which a custom backbone has only if it is "
                    "an aligncli.models.backbone.Backbone; take the RoI head 'two_fc' and the neck 'fpn'"
                )
            stages = backbone.stop_at(stride.bit_length() - 1)
            return pool, StageHead(stages), backbone.channels[max(backbone.channels)]


def _build_rpn(part: RPNConfig, neck: FeaturePyramid | BackboneStage) -> RegionProposalNetwork:
    anchors = build_anchors(part.anchors)
    return RegionProposalNetwork(
        cast("Any", CellAnchors(anchors, neck.strides)),
        ProposalHead(neck.channels, anchors.num_per_cell),
        fg_iou_thresh=part.foreground,
        bg_iou_thresh=part.background,
        batch_size_per_image=part.num_samples,
        positive_fraction=part.positive_fraction,
        pre_nms_top_n={"training": part.train_candidates, "testing": part.test_candidates},
        post_nms_top_n={"training": part.train_proposals, "testing": part.test_proposals},
        nms_thresh=part.nms_threshold,
    )


def _build_roi_heads(
    part: TwoFCHeadConfig | StageHeadConfig,
    postprocess: PostprocessConfig,
    pool: RoIPool,
    head: nn.Module,
    predictor: BoxPredictor,
) -> RoIHeads:
    weights = tuple(1 / std for std in part.box_stds)
    return RoIHeads(
        pool,
        head,
        predictor,
        fg_iou_thresh=part.foreground,
        bg_iou_thresh=part.background,
        batch_size_per_image=part.num_samples,
        positive_fraction=part.positive_fraction,
        bbox_reg_weights=weights,
        score_thresh=postprocess.score_threshold,
        nms_thresh=postprocess.nms_threshold,
        detections_per_img=postprocess.detections_per_image,
    )
