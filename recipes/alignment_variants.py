"""The alignment variants of Figure 3 under the four-convolution head (Table 4); (d) is RoIConv.

At small scale (d) is `aligndet_small`, at the paper's `aligndet_r50_head4`. Nothing else differs.
"""

from __future__ import annotations

from .aligndet_r50_head4 import RECIPE as HEAD4
from .aligndet_small import RECIPE as SMALL

VARIANTS = {
    "conv": ("(a) a plain convolution", "35.2"),
    "deform": ("(b) a deformable convolution", "35.3"),
    "guided": ("(c) an anchor-guided deformable convolution", "35.2"),
}


def _aligned(kind: str) -> dict[str, object]:
    return {"model.adm.alignment": {"kind": kind, "kernel_size": 3}}


RECIPES = tuple(
    SMALL.changed(
        {
            "name": f"aligndet_small_{kind}",
            "summary": f"AlignDet on shapes, aligned by {words}",
            "paper": "Table 4 at small scale",
            **_aligned(kind),
        }
    )
    for kind, (words, _) in VARIANTS.items()
) + tuple(
    HEAD4.changed(
        {
            "name": f"aligndet_r50_{kind}",
            "summary": f"AlignDet, ResNet-50, aligned by {words}",
            "paper": f"Table 4: AP {average_precision}",
            **_aligned(kind),
        }
    )
    for kind, (words, average_precision) in VARIANTS.items()
)
