"""Detectors and their parts as data. Defaults are the paper's (section 5.1) unless a comment says otherwise.

Thresholds are IoUs in 0..1, box sides are pixels of the network input, scales are multiples of a stride.
"""

from typing import Annotated, Literal

from pydantic import Field

from aligncli.config.base import Config, Count, Fraction, NonNegative, Positive


class BackboneConfig(Config):
    """`tiny` is the small-scale stand-in, everything else is torchvision's."""

    name: Literal["resnet50", "resnet101", "resnext101_32x8d", "tiny"] = "resnet50"
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2  # stem (conv1) and conv2_x, as in the paper
    frozen_norm: bool = True
    tiny_widths: tuple[Count, Count, Count, Count, Count] = (16, 32, 64, 96, 128)


class FPNConfig(Config):
    """Feature pyramid with one map a level, stride 2**level. P6 comes from C5, P7 from relu(P6)."""

    kind: Literal["fpn"] = "fpn"
    levels: tuple[Annotated[int, Field(ge=2, le=7)], ...] = (3, 4, 5, 6, 7)
    channels: Count = 256


class SingleLevelConfig(Config):
    """One map, for Tables 1 and 2. `top_down` merges the coarser stages into it as an FPN would."""

    kind: Literal["single_level"] = "single_level"
    level: Annotated[int, Field(ge=2, le=5)] = 4
    channels: Count = 256
    top_down: bool = True


Neck = Annotated[FPNConfig | SingleLevelConfig, Field(discriminator="kind")]


class AnchorConfig(Config):
    """Anchors of one cell: every scale with every ratio. Side = scale * stride, ratio = height / width."""

    scales: tuple[Positive, ...] = (4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3))
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)


class MatcherConfig(Config):
    """IoU >= foreground is positive, < background is negative, between is ignored.

    With `low_quality`, each ground truth's best anchor is positive whatever its IoU.
    """

    foreground: Fraction = 0.5
    background: Fraction = 0.4
    low_quality: bool = True


class LossConfig(Config):
    """Focal loss for classes and smooth L1 for boxes, both summed and divided by the normaliser."""

    focal_alpha: Fraction = 0.25
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    smooth_l1_beta: Positive = 0.11
    normalizer: Literal["positives", "positives_plus_one"] = "positives"
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    box_stds: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)


class TowerConfig(Config):
    """Two stacks of 3x3 convolutions, one for classes and one for boxes, before the predictors."""

    num_convs: NonNegative = 4
    channels: Count = 256
    norm: Literal["none", "group"] = "none"


class RetinaNetDPMConfig(Config):
    """RetinaNet with one anchor a cell as the dense proposal module (sections 4.3 and 5.1)."""

    kind: Literal["retinanet"] = "retinanet"
    anchors: AnchorConfig = AnchorConfig(scales=(4.0,), ratios=(1.0,))
    tower: TowerConfig = TowerConfig()
    matcher: MatcherConfig = MatcherConfig(foreground=0.4, background=0.3)
    loss: LossConfig = LossConfig()
    min_side: Positive = 1.0  # refined anchors are at least this wide and high


DPM = RetinaNetDPMConfig


class RoIConvConfig(Config):
    """Alignment (d): sample inside each location's refined anchor. `finest_kernel_size` is 7x7-dagger."""

    kind: Literal["roi_conv"] = "roi_conv"
    kernel_size: Count = 7
    finest_kernel_size: Count | None = None


Alignment = RoIConvConfig


class ADMConfig(Config):
    """Aligned detection module: one aligned convolution, then one trunk for classes and boxes.

    The paper's heads: 3x3 aligned 256 + four 3x3 256 (`num_convs=4, conv_kernel_size=3`), and
    k x k aligned 1024 + one 1x1 1024 (`num_convs=1, conv_kernel_size=1`).
    """

    alignment: Alignment = RoIConvConfig()
    channels: Count = 1024
    num_convs: NonNegative = 1
    conv_kernel_size: Literal[1, 3] = 1
    predictor_kernel_size: Literal[1, 3] = 1
    norm: Literal["none", "group"] = "none"
    matcher: MatcherConfig = MatcherConfig(foreground=0.7, background=0.7)
    loss: LossConfig = LossConfig()


class PostprocessConfig(Config):
    """Score cut, top candidates a level, class-wise NMS, detections an image (section 5.1)."""

    score_threshold: Fraction = 0.05
    candidates_per_level: Count = 1000
    nms_threshold: Fraction = 0.5
    detections_per_image: Count = 100


class RetinaNetConfig(Config):
    """RetinaNet with any levels and any anchors a cell (Tables 1, 2, 3 and 6)."""

    kind: Literal["retinanet"] = "retinanet"
    backbone: BackboneConfig = BackboneConfig()
    neck: Neck = FPNConfig()
    anchors: AnchorConfig = AnchorConfig()
    tower: TowerConfig = TowerConfig()
    matcher: MatcherConfig = MatcherConfig()
    loss: LossConfig = LossConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


class AlignDetConfig(Config):
    """Fully Convolutional AlignDet: DPM + ADM (section 4.3, Figure 2)."""

    kind: Literal["aligndet"] = "aligndet"
    backbone: BackboneConfig = BackboneConfig()
    neck: Neck = FPNConfig()
    dpm: DPM = RetinaNetDPMConfig()
    adm: ADMConfig = ADMConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


Model = Annotated[RetinaNetConfig | AlignDetConfig, Field(discriminator="kind")]
