"""The recipe of a bare `aligncli train`: AlignDet on shapes in a few minutes on a CPU."""

from __future__ import annotations

from . import small
from .aligndet_small import RECIPE as ALIGNDET

RECIPE = ALIGNDET.changed(
    {
        "name": "quickstart",
        "summary": "AlignDet on shapes, 7x7 RoIConv: minutes on a CPU",
        "paper": "the 7x7 head of Table 6, at small scale",
        "model.adm": small.ONE_CONV_ADM.model_dump(),
        "data.num_train": 2000,
        "schedule.iterations": 900,
        "schedule.checkpoint_every": 300,
    }
)
