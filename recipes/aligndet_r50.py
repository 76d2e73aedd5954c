"""AlignDet with ResNet-50: 7x7 RoIConv 1024 and one 1x1 convolution 1024 (Tables 3 and 6, AP 37.9)."""

from __future__ import annotations

from aligncli.config import ADMConfig, AlignDetConfig, Recipe, RoIConvConfig

from .base import COCO

RECIPE = Recipe(
    name="aligndet_r50",
    summary="AlignDet, ResNet-50, 7x7 RoIConv 1024",
    paper="Tables 3, 6: AP 37.9",
    model=AlignDetConfig(
        adm=ADMConfig(alignment=RoIConvConfig(kernel_size=7), channels=1024, num_convs=1, conv_kernel_size=1)
    ),
    weights="imagenet",
    data=COCO,
)
