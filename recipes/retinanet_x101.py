"""RetinaNet with ResNeXt-101-32x8d, 1.5 times the schedule and scale jitter (Table 7, AP 40.8 on test-dev)."""

from __future__ import annotations

from .retinanet_r50 import RECIPE as RETINANET_R50

RECIPE = RETINANET_R50.changed(
    {
        "name": "retinanet_x101",
        "summary": "RetinaNet, ResNeXt-101, nine anchors a cell, 1.5x schedule",
        "paper": "Table 7: AP 40.8 (test-dev)",
        "model.backbone.name": "resnext101_32x8d",
        "input.min_short_side": 640,
        "schedule.iterations": 135_000,
    }
)
