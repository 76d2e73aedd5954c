"""The aligned detection module and its alignment variants (Figure 3)."""

from collections.abc import Sequence

from torch import nn

from aligncli.build.custom import Parts, custom_alignment
from aligncli.config import (
    ADMConfig,
    Alignment,
    ConvAlignmentConfig,
    CustomConfig,
    DeformConfig,
    GuidedConfig,
    OpsConfig,
    RoIConvConfig,
)
from aligncli.errors import RecipeError
from aligncli.models.adm import AlignedDetectionModule, AlignedTrunk
from aligncli.models.align import ConvAlignment, DeformAlignment, GuidedAlignment, RoIConvAlignment
from aligncli.models.branches import init_he


def build_adm(
    part: ADMConfig, in_channels: int, num_classes: int, strides: Sequence[int], ops: OpsConfig, parts: Parts
) -> AlignedDetectionModule:
    """The aligned detection module; 7x7-dagger gets a second trunk for the finest level."""

    def trunk(alignment: Alignment) -> AlignedTrunk:
        return AlignedTrunk(
            build_alignment(alignment, in_channels, part.channels, part.norm == "none", strides, ops, parts),
            channels=part.channels,
            num_convs=part.num_convs,
            conv_kernel_size=part.conv_kernel_size,
            norm=part.norm,
        )

    finest = part.alignment.finest_kernel_size if isinstance(part.alignment, RoIConvConfig) else None
    if finest is not None and len(strides) == 1:
        raise RecipeError(
            f"model.adm.alignment.finest_kernel_size is {finest}, for the finest of several levels, and the neck has "
            "one: expected null, or more neck.levels"
        )
    adm = AlignedDetectionModule(
        trunk=trunk(part.alignment),
        finest_trunk=None if finest is None else trunk(RoIConvConfig(kernel_size=finest)),
        channels=part.channels,
        num_classes=num_classes,
        predictor_kernel_size=part.predictor_kernel_size,
    )
    if part.init == "he":
        init_he(adm)
    return adm


def build_alignment(
    part: Alignment,
    in_channels: int,
    out_channels: int,
    bias: bool,
    strides: Sequence[int],
    ops: OpsConfig,
    parts: Parts,
) -> nn.Module:
    """One alignment variant; see models/align.py. `strides` are those of the levels it will be called with."""
    match part:
        case ConvAlignmentConfig():
            return ConvAlignment(in_channels, out_channels, kernel_size=part.kernel_size, bias=bias)
        case DeformConfig():
            return DeformAlignment(
                in_channels,
                out_channels,
                kernel_size=part.kernel_size,
                bias=bias,
                strides=strides,
                backend=ops.backend,
                offset_std=part.offset_std,
            )
        case GuidedConfig():
            return GuidedAlignment(
                in_channels, out_channels, kernel_size=part.kernel_size, bias=bias, strides=strides, backend=ops.backend
            )
        case RoIConvConfig():
            return RoIConvAlignment(
                in_channels, out_channels, kernel_size=part.kernel_size, bias=bias, backend=ops.backend
            )
        case CustomConfig():
            given = {"in_channels": in_channels, "out_channels": out_channels, "bias": bias, "strides": strides}
            return custom_alignment(part, parts, given)
