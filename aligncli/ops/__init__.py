"""Operators: RoIConv, and the geometry that it shares with convolution and RoIAlign (section 4 of the paper)."""

from aligncli.ops.backend import BACKENDS, Backend, choose_backend
from aligncli.ops.deformable import DeformableConv2d, deformable_conv
from aligncli.ops.offsets import (
    deformed_points,
    deformed_taps,
    implicit_rois,
    roi_offsets,
    roi_taps,
    rois_of_offsets,
    sampling_points,
)
from aligncli.ops.roi_conv import roi_conv
from aligncli.ops.roi_conv2d import RoIConv2d

__all__ = [
    "BACKENDS",
    "Backend",
    "DeformableConv2d",
    "RoIConv2d",
    "choose_backend",
    "deformable_conv",
    "deformed_points",
    "deformed_taps",
    "implicit_rois",
    "roi_conv",
    "roi_offsets",
    "roi_taps",
    "rois_of_offsets",
    "sampling_points",
]
