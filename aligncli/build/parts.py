"""Parts that detectors share: backbones, necks, branches, anchors, losses, post-processing."""

from aligncli.anchors import AnchorGenerator
from aligncli.build.custom import Parts, custom_backbone
from aligncli.config import (
    AnchorConfig,
    Backbone,
    CustomConfig,
    EfficientNetLite0Config,
    FPNConfig,
    LossConfig,
    MatcherConfig,
    MultiBoxLossConfig,
    Neck,
    PostprocessConfig,
    ResNetConfig,
    SingleLevelConfig,
    StageConfig,
    TinyConfig,
    TowerConfig,
)
from aligncli.matching import Matcher
from aligncli.models import backbone as backbones
from aligncli.models.branches import Branches
from aligncli.models.efficientnet_lite import efficientnet_lite0_backbone
from aligncli.models.fpn import BackboneStage, FeaturePyramid
from aligncli.models.head_loss import HeadLoss
from aligncli.models.multibox import MultiBoxLoss
from aligncli.models.postprocess import Postprocess
from aligncli.models.refinedet import BackboneLevels


def build_backbone(part: Backbone, parts: Parts) -> backbones.Backbone:
    """C2..C5 maps; see models/backbone.py."""
    match part:
        case ResNetConfig():
            return backbones.resnet_backbone(
                part.name,
                frozen_stages=part.frozen_stages,
                frozen_norm=part.frozen_norm,
                norm_epsilon=part.norm_epsilon,
                stride_in="1x1" if part.origin == "msra" else "3x3",
            )
        case TinyConfig():
            return backbones.tiny_backbone(part.widths, frozen_stages=part.frozen_stages, frozen_norm=part.frozen_norm)
        case EfficientNetLite0Config():
            return efficientnet_lite0_backbone(frozen_stages=part.frozen_stages, frozen_norm=part.frozen_norm)
        case CustomConfig():
            return custom_backbone(part, parts)


def build_neck(part: Neck | StageConfig, backbone: backbones.Backbone) -> FeaturePyramid | BackboneStage:
    """The pyramid, or the one map, that the heads run on."""
    match part:
        case FPNConfig():
            return FeaturePyramid(
                backbone.channels,
                channels=part.channels,
                levels=part.levels,
                top_down=part.top_down,
                p6_from=part.p6_from,
                norm=part.norm,
            )
        case SingleLevelConfig():
            return FeaturePyramid(
                backbone.channels,
                channels=part.channels,
                levels=(part.level,),
                top_down=part.top_down,
                norm=part.norm,
            )
        case StageConfig():
            return BackboneStage(backbone.channels, level=part.level)


def leave_out_unread(backbone: backbones.Backbone, neck: FeaturePyramid | BackboneStage | BackboneLevels) -> None:
    """Neither compute nor train stages coarser than the neck reads: several processes would wait for gradients."""
    if isinstance(backbone, backbones.Backbone):  # a custom one may be another class
        backbone.stop_at(neck.coarsest_input).requires_grad_(False)


def build_branches(part: TowerConfig, in_channels: int, num_classes: int, num_anchors: int) -> Branches:
    """RetinaNet's two towers and predictors."""
    return Branches(
        in_channels,
        num_classes=num_classes,
        num_anchors=num_anchors,
        num_convs=part.num_convs,
        tower_channels=part.channels,
        norm=part.norm,
    )


def tower_channels(part: TowerConfig, in_channels: int) -> int:
    """Channels of a tower's outputs; a tower without convolutions passes its input on."""
    return part.channels if part.num_convs else in_channels


def build_anchors(part: AnchorConfig) -> AnchorGenerator:
    """Predefined anchors of a cell."""
    return AnchorGenerator(**part.model_dump())


def build_matcher(part: MatcherConfig) -> Matcher:
    """Max-IoU assignment."""
    return Matcher(**part.model_dump())


def build_loss(part: LossConfig, matcher: MatcherConfig) -> HeadLoss:
    """Matching and losses of one head."""
    return HeadLoss(
        matcher=build_matcher(matcher),
        focal_alpha=part.focal_alpha,
        focal_gamma=part.focal_gamma,
        smooth_l1_beta=part.smooth_l1_beta,
        normalizer=part.normalizer,
        weight=part.weight,
        box_stds=part.box_stds,
    )


def build_multibox_loss(part: MultiBoxLossConfig, matcher: MatcherConfig) -> MultiBoxLoss:
    """Matching, hard negative mining and losses of one softmax head."""
    return MultiBoxLoss(matcher=build_matcher(matcher), **part.model_dump())


def build_postprocess(part: PostprocessConfig) -> Postprocess:
    """Score cut, top-k, NMS."""
    return Postprocess(**part.model_dump())
