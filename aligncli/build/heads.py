"""Dense heads, alone or as DPM: one `match` statement for both unions of config/model.py."""

from collections.abc import Sequence

from aligncli.build.custom import Parts, custom_head
from aligncli.build.parts import (
    build_anchors,
    build_branches,
    build_loss,
    build_matcher,
    build_multibox_loss,
    tower_channels,
)
from aligncli.config import (
    DPM,
    CustomConfig,
    DenseBoxConfig,
    FCOSConfig,
    FoveaBoxConfig,
    FSAFDPMConfig,
    FSAFHeadConfig,
    GuidedAnchoringConfig,
    Head,
    MetaAnchorHeadConfig,
    OpsConfig,
    RepPointsConfig,
    RetinaNetHeadConfig,
    RPNDPMConfig,
    SSDHeadConfig,
    TowerConfig,
)
from aligncli.models.branches import init_he
from aligncli.models.heads.aligned_anchors import AlignedAnchorsHead, AnchorRoIConv
from aligncli.models.heads.base import DenseHead
from aligncli.models.heads.densebox import DenseBoxHead
from aligncli.models.heads.fcos import FCOSHead
from aligncli.models.heads.foveabox import FoveaBoxHead
from aligncli.models.heads.fsaf import FSAFHead
from aligncli.models.heads.guided_anchoring import GuidedAnchoringHead
from aligncli.models.heads.metaanchor import MetaAnchorBranches
from aligncli.models.heads.reppoints import RepPointsHead
from aligncli.models.heads.retinanet import RetinaNetHead
from aligncli.models.heads.rpn import RPNHead, RPNLoss
from aligncli.models.heads.ssd import SSDHead
from aligncli.models.multibox import MultiBoxPredictors


def build_head(
    part: DPM | Head, channels: int, num_classes: int, strides: Sequence[int], ops: OpsConfig, parts: Parts
) -> DenseHead:
    """A head on maps of `channels` channels, one for each of `strides`; see models/heads.

    A DPM's config is a head's with one anchor: RetinaNetDPMConfig is a RetinaNetHeadConfig.
    """
    head = _make_head(part, channels, num_classes, strides, ops, parts)
    tower: TowerConfig | None = getattr(part, "tower", None)
    if tower is not None and tower.init == "he":
        init_he(head)
    return head


def _make_head(
    part: DPM | Head, channels: int, num_classes: int, strides: Sequence[int], ops: OpsConfig, parts: Parts
) -> DenseHead:
    match part:
        case RetinaNetHeadConfig():
            if part.roi_conv != "none":
                return _build_aligned_anchors(part, channels, num_classes, ops)
            anchors = build_anchors(part.anchors)
            branches = build_branches(part.tower, channels, num_classes, anchors.num_per_cell)
            return RetinaNetHead(anchors=anchors, branches=branches, loss=build_loss(part.loss, part.matcher))
        case RPNDPMConfig():
            loss = RPNLoss(matcher=build_matcher(part.matcher), **part.loss.model_dump())
            return RPNHead(channels, anchors=build_anchors(part.anchors), channels=part.channels, loss=loss)
        case SSDHeadConfig():
            anchors = build_anchors(part.anchors)
            predictors = MultiBoxPredictors(
                [channels] * len(strides), num_classes=num_classes, num_anchors=anchors.num_per_cell
            )
            loss = build_multibox_loss(part.loss, part.matcher)
            return SSDHead(anchors=anchors, predictors=predictors, loss=loss)
        case MetaAnchorHeadConfig():
            anchors = build_anchors(part.anchors)
            branches = MetaAnchorBranches(
                channels,
                num_classes=num_classes,
                shapes=anchors.shapes,
                num_hidden=part.num_hidden,
                num_convs=part.tower.num_convs,
                tower_channels=part.tower.channels,
                norm=part.tower.norm,
            )
            return RetinaNetHead(anchors=anchors, branches=branches, loss=build_loss(part.loss, part.matcher))
        case FCOSConfig():
            return FCOSHead(
                branches=build_branches(part.tower, channels, num_classes, 1),
                tower_channels=tower_channels(part.tower, channels),
                num_levels=len(strides),
                **part.model_dump(exclude={"kind", "tower"}),
            )
        case FoveaBoxConfig():
            branches = build_branches(part.tower, channels, num_classes, 1)
            return FoveaBoxHead(branches=branches, **part.model_dump(exclude={"kind", "tower"}))
        case FSAFDPMConfig():
            return FSAFHead(
                branches=build_branches(part.tower, channels, num_classes, 1),
                anchor_based=_fsaf_anchor_based(part, channels, num_classes),
                **part.model_dump(exclude={"kind", "tower", "anchors", "matcher", "loss"}),
            )
        case DenseBoxConfig():
            branches = build_branches(part.tower, channels, num_classes, 1)
            return DenseBoxHead(branches=branches, **part.model_dump(exclude={"kind", "tower"}))
        case GuidedAnchoringConfig():
            own = {"kind", "tower", "sampled_shapes", "shape_matcher", "matcher", "loss"}
            return GuidedAnchoringHead(
                branches=build_branches(part.tower, channels, num_classes, 1),
                channels=tower_channels(part.tower, channels),
                sampled_shapes=build_anchors(part.sampled_shapes),
                shape_matcher=build_matcher(part.shape_matcher),
                loss=build_loss(part.loss, part.matcher),
                backend=ops.backend,
                **part.model_dump(exclude=own),
            )
        case RepPointsConfig():
            return RepPointsHead(
                channels,
                num_classes=num_classes,
                num_convs=part.tower.num_convs,
                tower_channels=part.tower.channels,
                norm=part.tower.norm,
                matcher=build_matcher(part.matcher),
                backend=ops.backend,
                **part.model_dump(exclude={"kind", "tower", "matcher"}),
            )
        case CustomConfig():
            return custom_head(part, parts, {"channels": channels, "num_classes": num_classes, "strides": strides})


def _fsaf_anchor_based(part: FSAFDPMConfig, channels: int, num_classes: int) -> RetinaNetHead | None:
    """RetinaNet's predictors alone, to look at the towers of the anchor-free branch."""
    if not isinstance(part, FSAFHeadConfig) or part.anchors is None:
        return None
    anchors = build_anchors(part.anchors)
    no_tower = part.tower.model_copy(update={"num_convs": 0})
    predictors = build_branches(no_tower, tower_channels(part.tower, channels), num_classes, anchors.num_per_cell)
    return RetinaNetHead(anchors=anchors, branches=predictors, loss=build_loss(part.loss, part.matcher))


def _build_aligned_anchors(
    part: RetinaNetHeadConfig, channels: int, num_classes: int, ops: OpsConfig
) -> AlignedAnchorsHead:
    """RetinaNet + RoIConv: what follows the RoIConv sees one anchor at a time."""

    def alignment(width: int) -> AnchorRoIConv:
        return AnchorRoIConv(width, kernel_size=part.roi_conv_kernel_size, norm=part.tower.norm, backend=ops.backend)

    before = part.roi_conv == "before_tower"
    width = tower_channels(part.tower, channels)
    return AlignedAnchorsHead(
        anchors=build_anchors(part.anchors),
        branches=build_branches(part.tower, channels, num_classes, 1),
        before_tower=alignment(channels) if before else None,
        after_tower=None if before else (alignment(width), alignment(width)),
        loss=build_loss(part.loss, part.matcher),
    )
