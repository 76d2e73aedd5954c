"""Parts that detectors share, as data. Defaults are the paper's (section 5.1) unless a comment says otherwise.

Thresholds are IoUs in 0..1, box sides are pixels of the network input, scales are multiples of a stride.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from aligncli.config.base import Config, Count, Fraction, NonNegative, Positive


class CustomConfig(Config):
    """A part of your own: `name` is looked up in the PARTS of the recipe file (docs/extending.md)."""

    kind: Literal["custom"] = "custom"
    name: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)  # keyword arguments of your factory


class ResNetConfig(Config):
    """torchvision's ResNets, frozen as in the paper.

    `origin` is whose weights the network is for: MSRA's halve the map in the 1x1 convolution of a stage's first
    bottleneck, not in the 3x3; MSRA's and Caffe2's were trained on BGR pixels (engine/weight_names.py).
    """

    kind: Literal["resnet"] = "resnet"
    name: Literal["resnet18", "resnet50", "resnet101", "resnext101_32x8d"] = "resnet50"
    origin: Literal["torchvision", "msra", "caffe2"] = "torchvision"
    norm_epsilon: Annotated[float, Field(ge=0.0)] = 1e-5  # torchvision's first RetinaNet was trained with 0
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2  # stem (conv1) and conv2_x
    frozen_norm: bool = True

    @model_validator(mode="after")
    def _norms_that_train_have_an_epsilon(self) -> Self:
        """torch 2.11 refuses a batch norm with 0 at its first batch."""
        if self.norm_epsilon == 0 and not self.frozen_norm:
            raise ValueError("norm_epsilon=0 is for frozen norms: set it to 1e-5, or frozen_norm=true")
        return self


class TinyConfig(Config):
    """The small-scale stand-in: one basic block a stage."""

    kind: Literal["tiny"] = "tiny"
    widths: tuple[Count, Count, Count, Count, Count] = (16, 32, 64, 96, 128)  # stem, stages 2..5
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    frozen_norm: bool = False


class EfficientNetLite0Config(Config):
    """EfficientNet-Lite0, a backbone for fine-tuning on a CPU; statistics stay those of its weights."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    frozen_norm: bool = True


Backbone = Annotated[ResNetConfig | TinyConfig | EfficientNetLite0Config | CustomConfig, Field(discriminator="kind")]


class FPNConfig(Config):
    """Feature pyramid with one map a level, stride 2**level. P7 comes from relu(P6).

    Without `top_down` the levels do not see each other, as in SSD.
    """

    kind: Literal["fpn"] = "fpn"
    levels: Annotated[tuple[Annotated[int, Field(ge=2, le=7)], ...], Field(min_length=1)] = (3, 4, 5, 6, 7)
    channels: Count = 256
    top_down: bool = True
    # A convolution on C5, or on P5 (torchvision's first RetinaNet), or every other cell of P5 (Faster R-CNN)
    p6_from: Literal["c5", "p5", "pooled_p5"] = "c5"
    norm: Literal["none", "group"] = "none"  # behind each of its convolutions

    @model_validator(mode="after")
    def _p6_is_there_to_come_from_p5(self) -> Self:
        if self.p6_from == "p5" and 6 not in self.levels:
            raise ValueError(
                f"p6_from is p5, and levels {self.levels} hold no P6: add it, or leave p6_from at its default c5"
            )
        return self


class SingleLevelConfig(Config):
    """One map, for Tables 1 and 2. `top_down` merges the coarser stages into it as an FPN would."""

    kind: Literal["single_level"] = "single_level"
    level: Annotated[int, Field(ge=2, le=5)] = 4
    channels: Count = 256
    top_down: bool = True
    norm: Literal["none", "group"] = "none"  # behind each of its convolutions


Neck = Annotated[FPNConfig | SingleLevelConfig, Field(discriminator="kind")]


class AnchorConfig(Config):
    """Anchors of one cell: every scale with every ratio, then squares of further scales.

    Side = scale * stride, ratio = height / width. They are centred on their cells; torchvision's, which its
    own detectors were trained with, on the cells' corners, in whole pixels (anchors.py).
    """

    scales: tuple[Positive, ...] = (4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3))
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    square_scales: tuple[Positive, ...] = ()
    convention: Literal["cells", "torchvision"] = "cells"

    @model_validator(mode="after")
    def _a_cell_has_anchors(self) -> Self:
        if self.num_per_cell == 0:
            raise ValueError(
                f"scales {self.scales}, ratios {self.ratios} and square_scales {self.square_scales} make no anchor: "
                "expected a scale and a ratio, or a square scale"
            )
        return self

    @property
    def num_per_cell(self) -> int:
        """A, the anchors of one cell."""
        return len(self.scales) * len(self.ratios) + len(self.square_scales)


ONE_ANCHOR = AnchorConfig(scales=(4.0,), ratios=(1.0,))  # the paper's DPM


class MatcherConfig(Config):
    """IoU >= foreground is positive, < background is negative, between is ignored.

    With `low_quality`, each ground truth's best anchor is positive whatever its IoU, and all that are as good.
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
    init: Literal["gaussian", "he"] = "gaussian"  # sigma .01 (section 5.1), or He's, but for predictors


class PostprocessConfig(Config):
    """Score cut, top candidates a level, class-wise NMS, detections an image (section 5.1)."""

    score_threshold: Fraction = 0.05
    candidates_per_level: Count = 1000
    nms_threshold: Fraction = 0.5
    detections_per_image: Count = 100
