"""Alignment variants (Figure 3, Table 4) and the aligned detection module, as data."""

from typing import Annotated, Literal

from pydantic import Field

from aligncli.config.base import Config, Count, NonNegative, Positive
from aligncli.config.parts import CustomConfig, LossConfig, MatcherConfig

KernelSize = Annotated[int, Field(ge=1, le=63)]


class ConvAlignmentConfig(Config):
    """Alignment (a): a plain convolution, as in RefineDet."""

    kind: Literal["conv"] = "conv"
    kernel_size: KernelSize = 3


class DeformConfig(Config):
    """Alignment (b): a deformable convolution with offsets learned from the features."""

    kind: Literal["deform"] = "deform"
    kernel_size: KernelSize = 3
    offset_std: Positive = 0.01  # of the offset predictors' initial weights, for features of about unit size


class GuidedConfig(Config):
    """Alignment (c): a deformable convolution with offsets learned from the refined anchors' shapes."""

    kind: Literal["guided"] = "guided"
    kernel_size: KernelSize = 3


class RoIConvConfig(Config):
    """Alignment (d): sample inside each location's refined anchor. `finest_kernel_size` is 7x7-dagger."""

    kind: Literal["roi_conv"] = "roi_conv"
    kernel_size: KernelSize = 7
    finest_kernel_size: KernelSize | None = None


Alignment = Annotated[
    ConvAlignmentConfig | DeformConfig | GuidedConfig | RoIConvConfig | CustomConfig,
    Field(discriminator="kind"),
]


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
    init: Literal["gaussian", "he"] = "gaussian"  # sigma .01 (section 5.1), or He's, but for predictors
    matcher: MatcherConfig = MatcherConfig(foreground=0.7, background=0.7)
    loss: LossConfig = LossConfig()
