"""What recipes share: COCO as the paper uses it, and the seeds of the embedded `shapes` data.

Image i of `shapes` is a function of (seed, i), so two seeds share no image. Each purpose owns a hundred
seeds; the first is the default and the rest are for repeats. Nothing may cross from one purpose to another:

    100-199  pre-training of the packaged weights (and the images that check them)
    200-299  training
    300-399  choosing settings: `--set data.val_seed=300` while you look at AP and change numbers
    400-499  reporting: the AP that a run prints, and every figure in the documentation
"""

from __future__ import annotations

from aligncli.config import CocoConfig

PRETRAIN_TRAIN_SEED = 100
PRETRAIN_VAL_SEED = 150
TRAIN_SEED = 200
CHOOSE_SEED = 300
REPORT_SEED = 400

# Section 5.1: trainval35k and minival are today's train2017 and val2017.
COCO = CocoConfig(
    root="coco",
    images="{split}2017",
    train_annotations="annotations/instances_train2017.json",
    val_annotations="annotations/instances_val2017.json",
)
