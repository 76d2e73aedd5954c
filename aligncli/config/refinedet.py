"""RefineDet as data (Zhang et al. 2018, sections 3 and 4; supplementary material and code for ResNet-101)."""

from typing import Annotated, Literal

from pydantic import Field

from aligncli.config.anchor_heads import MultiBoxLossConfig
from aligncli.config.base import Config, Count, Fraction, Positive
from aligncli.config.parts import AnchorConfig, Backbone, MatcherConfig, PostprocessConfig, ResNetConfig


class StagesConfig(Config):
    """No neck: the backbone's own maps, and one stride-2 convolution with `channels` for each level beyond C5."""

    kind: Literal["stages"] = "stages"
    levels: Annotated[tuple[Annotated[int, Field(ge=2, le=7)], ...], Field(min_length=1)] = (3, 4, 5, 6)
    channels: Count = 256
    norm: Literal["none", "group"] = "none"


class TransferConfig(Config):
    """Transfer connection blocks: from the ARM's maps to a pyramid for the ODM."""

    channels: Count = 256
    norm: Literal["none", "group"] = "none"


class RefineDetConfig(Config):
    """RefineDet: its ARM on the backbone's own maps, transfer connection blocks, its ODM on theirs (Table 7)."""

    kind: Literal["refinedet"] = "refinedet"
    backbone: Backbone = ResNetConfig()
    neck: StagesConfig = StagesConfig()
    transfer: TransferConfig = TransferConfig()
    anchors: AnchorConfig = AnchorConfig(scales=(4.0,), ratios=(0.5, 1.0, 2.0))
    negative_threshold: Fraction = 0.99  # background score of the ARM from which the ODM drops an anchor
    min_side: Positive = 1.0  # pixels; refined anchors are at least this wide and high
    arm_matcher: MatcherConfig = MatcherConfig(foreground=0.5, background=0.5)
    arm_loss: MultiBoxLossConfig = MultiBoxLossConfig()
    odm_matcher: MatcherConfig = MatcherConfig(foreground=0.5, background=0.5)
    odm_loss: MultiBoxLossConfig = MultiBoxLossConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
