"""AlignDet with the light head: 3x3 RoIConv 256 and four 3x3 convolutions 256 (Tables 4, 5, 6, AP 36.2)."""

from __future__ import annotations

from .aligndet_r50 import RECIPE as ALIGNDET_R50

RECIPE = ALIGNDET_R50.changed(
    {
        "name": "aligndet_r50_head4",
        "summary": "AlignDet, ResNet-50, 3x3 RoIConv 256 + four 3x3 convolutions",
        "paper": "Tables 4, 5, 6: AP 36.2",
        "model.adm.alignment.kernel_size": 3,
        "model.adm.channels": 256,
        "model.adm.num_convs": 4,
        "model.adm.conv_kernel_size": 3,
    }
)
