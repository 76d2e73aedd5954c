"""RefineDet: its levels, anchor refinement module, transfer connection blocks and object detection module."""

from typing import Any

from aligncli.build.parts import build_anchors, build_multibox_loss, leave_out_unread
from aligncli.config import RefineDetConfig
from aligncli.models.backbone import Backbone
from aligncli.models.multibox import MultiBoxPredictors
from aligncli.models.refinedet import BackboneLevels, RefineDet, TransferConnections


def build_refinedet(part: RefineDetConfig, *, num_classes: int, backbone: Backbone, **shared: Any) -> RefineDet:
    """The detector; `shared` is what every Detector takes."""
    neck = BackboneLevels(backbone.channels, channels=part.neck.channels, levels=part.neck.levels, norm=part.neck.norm)
    leave_out_unread(backbone, neck)
    anchors = build_anchors(part.anchors)
    transferred = [part.transfer.channels] * len(neck.levels)
    return RefineDet(
        backbone=backbone,
        neck=neck,
        strides=neck.strides,
        anchors=anchors,
        arm=MultiBoxPredictors(neck.channels, num_classes=1, num_anchors=anchors.num_per_cell),
        transfer=TransferConnections(neck.channels, channels=part.transfer.channels, norm=part.transfer.norm),
        odm=MultiBoxPredictors(transferred, num_classes=num_classes, num_anchors=anchors.num_per_cell),
        arm_loss=build_multibox_loss(part.arm_loss, part.arm_matcher),
        odm_loss=build_multibox_loss(part.odm_loss, part.odm_matcher),
        negative_threshold=part.negative_threshold,
        min_side=part.min_side,
        num_classes=num_classes,
        **shared,
    )
