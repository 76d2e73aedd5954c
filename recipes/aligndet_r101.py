"""AlignDet with ResNet-101 (Table 3, AP 39.8)."""

from __future__ import annotations

from .aligndet_r50 import RECIPE as ALIGNDET_R50

RECIPE = ALIGNDET_R50.changed(
    {
        "name": "aligndet_r101",
        "summary": "AlignDet, ResNet-101, 7x7 RoIConv 1024",
        "paper": "Table 3: AP 39.8",
        "model.backbone.name": "resnet101",
    }
)
