"""AlignDet with ResNeXt-101-32x8d, 1.5 times the schedule and scale jitter (Table 7, AP 44.1 on test-dev)."""

from __future__ import annotations

from .aligndet_r50 import RECIPE as ALIGNDET_R50

RECIPE = ALIGNDET_R50.changed(
    {
        "name": "aligndet_x101",
        "summary": "AlignDet, ResNeXt-101, 7x7 RoIConv 1024, 1.5x schedule",
        "paper": "Table 7: AP 44.1 (test-dev)",
        "model.backbone.name": "resnext101_32x8d",
        "input.min_short_side": 640,
        "schedule.iterations": 135_000,
    }
)
