"""Your own photographs: `aligncli train --data FOLDER`, with the tiny backbone so that a CPU will do.

Short sides of 256 to 320 pixels and P3 to P6 put the anchors at 24, 48, 96 and 192 pixels. The classes come
from the folder's annotations. COCO's area bins are kept: they count pixels of the original image.
"""

from __future__ import annotations

from aligncli.config import CocoConfig, EvaluationConfig, InputConfig

from .aligndet_small import RECIPE as ALIGNDET

RECIPE = ALIGNDET.changed(
    {
        "name": "photo",
        "summary": "AlignDet, tiny backbone, on your own images (--data FOLDER)",
        "paper": "",
        "model.neck.levels": (3, 4, 5, 6),
        "data": CocoConfig(root="").model_dump(),
        "input": InputConfig(min_short_side=256, max_short_side=320, long_side=512).model_dump(),
        "evaluation": EvaluationConfig(batch_size=8).model_dump(),
    }
)
