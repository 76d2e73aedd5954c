"""AlignDet 7x7-dagger: a 3x3 RoIConv on P3, where most locations are, 7x7 elsewhere (Table 6, AP 37.6)."""

from __future__ import annotations

from .aligndet_r50 import RECIPE as ALIGNDET_R50

RECIPE = ALIGNDET_R50.changed(
    {
        "name": "aligndet_r50_dagger",
        "summary": "AlignDet, ResNet-50, 7x7 RoIConv 1024, but 3x3 on P3",
        "paper": "Table 6: AP 37.6",
        "model.adm.alignment.finest_kernel_size": 3,
    }
)
