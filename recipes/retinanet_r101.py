"""RetinaNet with ResNet-101 (Table 3, AP 37.8)."""

from __future__ import annotations

from .retinanet_r50 import RECIPE as RETINANET_R50

RECIPE = RETINANET_R50.changed(
    {
        "name": "retinanet_r101",
        "summary": "RetinaNet, ResNet-101, nine anchors a cell",
        "paper": "Table 3: AP 37.8",
        "model.backbone.name": "resnet101",
    }
)
