"""Pre-training of the packaged `shapes` weights: RetinaNet-9 from scratch, of which backbone and FPN are kept.

It stands in for the paper's ImageNet pre-training; its images are shared with no other recipe.
"""

from __future__ import annotations

from .base import PRETRAIN_TRAIN_SEED, PRETRAIN_VAL_SEED
from .retinanet_small import RECIPE as RETINANET

RECIPE = RETINANET.changed(
    {
        "name": "pretrain_shapes",
        "summary": "RetinaNet on shapes from scratch: makes the packaged weights",
        "paper": "",
        "weights": "none",
        "data.train_seed": PRETRAIN_TRAIN_SEED,
        "data.val_seed": PRETRAIN_VAL_SEED,
        "optimizer.lr": 3e-3,
        "data.num_train": 8000,
        "schedule.iterations": 4000,
    }
)
