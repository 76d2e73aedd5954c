"""From a recipe to working parts: one `match` statement for each union of config/, nothing hidden.

To add a backbone, neck, DPM, alignment, detector or data set: write its class, its config, its case here.
"""

from aligncli.anchors import AnchorGenerator
from aligncli.config import (
    ADMConfig,
    AlignDetConfig,
    AnchorConfig,
    BackboneConfig,
    CocoConfig,
    FPNConfig,
    LossConfig,
    MatcherConfig,
    OpsConfig,
    PostprocessConfig,
    Recipe,
    RetinaNetConfig,
    RetinaNetDPMConfig,
    ShapesConfig,
    SingleLevelConfig,
    TowerConfig,
)
from aligncli.data.coco import CocoDataset
from aligncli.data.dataset import DetectionDataset, Split
from aligncli.data.shapes import ShapesDataset
from aligncli.matching import Matcher
from aligncli.models.adm import AlignedDetectionModule, AlignedTrunk
from aligncli.models.align import RoIConvAlignment
from aligncli.models.aligndet import AlignDet
from aligncli.models.backbone import Backbone, resnet_backbone, tiny_backbone
from aligncli.models.dense_head import DenseHead
from aligncli.models.detector import Detector
from aligncli.models.dpm.retinanet import RetinaNetDPM
from aligncli.models.fpn import FeaturePyramid
from aligncli.models.head_loss import HeadLoss
from aligncli.models.postprocess import Postprocess
from aligncli.models.retinanet import RetinaNet


def build_model(recipe: Recipe, num_classes: int) -> Detector:
    """The recipe's detector, randomly initialised and in training mode; `weights` are loaded by the engine."""
    model = recipe.model
    backbone = build_backbone(model.backbone)
    neck = build_neck(model.neck, backbone)
    shared = {
        "backbone": backbone,
        "neck": neck,
        "strides": neck.strides,
        "postprocess": build_postprocess(model.postprocess),
        "size_divisor": recipe.input.size_divisor,
    }
    channels = model.neck.channels
    match model:
        case RetinaNetConfig():
            anchors = build_anchors(model.anchors)
            head = build_dense_head(model.tower, channels, num_classes, anchors.num_per_cell)
            return RetinaNet(anchors=anchors, head=head, loss=build_loss(model.loss, model.matcher), **shared)
        case AlignDetConfig():
            dpm = build_dpm(model.dpm, channels, num_classes)
            adm = build_adm(model.adm, channels, num_classes, recipe.ops)
            return AlignDet(dpm=dpm, adm=adm, loss=build_loss(model.adm.loss, model.adm.matcher), **shared)


def build_backbone(part: BackboneConfig) -> Backbone:
    """C2..C5 maps; see models/backbone.py."""
    if part.name == "tiny":
        return tiny_backbone(part.tiny_widths, frozen_stages=part.frozen_stages, frozen_norm=part.frozen_norm)
    return resnet_backbone(part.name, frozen_stages=part.frozen_stages, frozen_norm=part.frozen_norm)


def build_neck(part: FPNConfig | SingleLevelConfig, backbone: Backbone) -> FeaturePyramid:
    """The pyramid, or the one level, that the heads run on."""
    match part:
        case FPNConfig():
            return FeaturePyramid(backbone.channels, channels=part.channels, levels=part.levels)
        case SingleLevelConfig():
            return FeaturePyramid(
                backbone.channels, channels=part.channels, levels=(part.level,), top_down=part.top_down
            )


def build_dpm(part: RetinaNetDPMConfig, channels: int, num_classes: int) -> RetinaNetDPM:
    """The dense proposal module; see models/dpm."""
    anchors = build_anchors(part.anchors)
    head = build_dense_head(part.tower, channels, num_classes, anchors.num_per_cell)
    loss = build_loss(part.loss, part.matcher)
    return RetinaNetDPM(anchors=anchors, head=head, loss=loss, min_side=part.min_side)


def build_adm(part: ADMConfig, in_channels: int, num_classes: int, ops: OpsConfig) -> AlignedDetectionModule:
    """The aligned detection module; 7x7-dagger gets a second trunk for the finest level."""

    def trunk(kernel_size: int) -> AlignedTrunk:
        alignment = RoIConvAlignment(
            in_channels, part.channels, kernel_size=kernel_size, bias=part.norm == "none", backend=ops.backend
        )
        return AlignedTrunk(
            alignment,
            channels=part.channels,
            num_convs=part.num_convs,
            conv_kernel_size=part.conv_kernel_size,
            norm=part.norm,
        )

    finest = part.alignment.finest_kernel_size
    return AlignedDetectionModule(
        trunk=trunk(part.alignment.kernel_size),
        finest_trunk=None if finest is None else trunk(finest),
        channels=part.channels,
        num_classes=num_classes,
        predictor_kernel_size=part.predictor_kernel_size,
    )


def build_dense_head(part: TowerConfig, in_channels: int, num_classes: int, num_anchors: int) -> DenseHead:
    """RetinaNet's two towers and predictors."""
    return DenseHead(
        in_channels,
        num_classes=num_classes,
        num_anchors=num_anchors,
        num_convs=part.num_convs,
        tower_channels=part.channels,
        norm=part.norm,
    )


def build_anchors(part: AnchorConfig) -> AnchorGenerator:
    """Predefined anchors of a cell."""
    return AnchorGenerator(scales=part.scales, ratios=part.ratios)


def build_loss(part: LossConfig, matcher: MatcherConfig) -> HeadLoss:
    """Matching and losses of one head."""
    return HeadLoss(
        matcher=Matcher(**matcher.model_dump()),
        focal_alpha=part.focal_alpha,
        focal_gamma=part.focal_gamma,
        smooth_l1_beta=part.smooth_l1_beta,
        normalizer=part.normalizer,
        weight=part.weight,
        box_stds=part.box_stds,
    )


def build_postprocess(part: PostprocessConfig) -> Postprocess:
    """Score cut, top-k, NMS."""
    return Postprocess(**part.model_dump())


def build_datasets(recipe: Recipe) -> tuple[DetectionDataset, DetectionDataset]:
    """The training and the validation set. Raises DataError."""
    return build_dataset(recipe, "train"), build_dataset(recipe, "val")


def build_dataset(recipe: Recipe, split: Split) -> DetectionDataset:
    """One split, "train" or "val". Raises DataError."""
    match recipe.data:
        case ShapesConfig():
            return ShapesDataset(recipe.data, split)
        case CocoConfig():
            return CocoDataset(recipe.data, split)
