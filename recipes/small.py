"""The small-scale setting: 128-pixel `shapes`, a tiny ResNet and a schedule of minutes on one CPU core.

Every part keeps the paper's structure; only sizes change. The paper's ratio between the largest anchor and
the implicit RoI of a 3x3 convolution (eq. 3) is kept too: anchors are 3 strides wide, as that RoI is.
"""

from __future__ import annotations

from aligncli.config import (
    AdamWConfig,
    ADMConfig,
    AnchorConfig,
    EvaluationConfig,
    FPNConfig,
    InputConfig,
    LossConfig,
    MatcherConfig,
    OneCycleConfig,
    RetinaNetDPMConfig,
    RoIConvConfig,
    ScheduleConfig,
    ShapesConfig,
    TinyConfig,
    TowerConfig,
)

from .base import REPORT_SEED, TRAIN_SEED

BACKBONE = TinyConfig()
FPN = FPNConfig(levels=(3, 4, 5), channels=64, norm="group")
TOWER = TowerConfig(num_convs=2, channels=64, norm="group", init="he")

ANCHOR_SCALE = 3.0
ONE_ANCHOR = AnchorConfig(scales=(ANCHOR_SCALE,), ratios=(1.0,))
NINE_ANCHORS = AnchorConfig(
    scales=(ANCHOR_SCALE, ANCHOR_SCALE * 2 ** (1 / 3), ANCHOR_SCALE * 2 ** (2 / 3)),
    ratios=(0.5, 1.0, 2.0),
)

# Short schedules need deltas of unit size; the refined anchor leaves the ADM half as much to correct.
LOSS = LossConfig(box_stds=(0.2, 0.2, 0.4, 0.4), smooth_l1_beta=1 / 9)
ADM_LOSS = LossConfig(box_stds=(0.1, 0.1, 0.2, 0.2), smooth_l1_beta=1 / 9)

DPM = RetinaNetDPMConfig(
    anchors=ONE_ANCHOR,
    tower=TOWER,
    matcher=MatcherConfig(foreground=0.4, background=0.3),
    loss=LOSS,
)
MIN_SIDE = 4.0
# The paper's 3x3 head: aligned 3x3, then four 3x3 convolutions (Tables 4 and 5).
FOUR_CONV_ADM = ADMConfig(
    alignment=RoIConvConfig(kernel_size=3),
    channels=128,
    num_convs=4,
    conv_kernel_size=3,
    predictor_kernel_size=3,
    norm="group",
    init="he",
    loss=ADM_LOSS,
)
# The paper's large-kernel head: aligned k x k, then one 1x1 convolution (Table 6).
ONE_CONV_ADM = ADMConfig(
    alignment=RoIConvConfig(kernel_size=7),
    channels=128,
    num_convs=1,
    conv_kernel_size=1,
    predictor_kernel_size=1,
    norm="group",
    init="he",
    loss=ADM_LOSS,
)

SHAPES = ShapesConfig(train_seed=TRAIN_SEED, val_seed=REPORT_SEED)
INPUT = InputConfig(min_short_side=128, max_short_side=128, long_side=128, aspect_grouping=False, workers=0)
OPTIMIZER = AdamWConfig(lr=2e-3, weight_decay=1e-4, reference_batch=8)
SCHEDULE = ScheduleConfig(
    iterations=1500,
    batch_size=8,
    decay=OneCycleConfig(warmup_fraction=0.1),
    clip_norm=10.0,
    log_every=10,
    checkpoint_every=500,
)
# Objects are 14 to 100 pixels, so small | medium | large part at 40 and 80 instead of COCO's 32 and 96.
EVALUATION = EvaluationConfig(area_bins=(40.0**2, 80.0**2), batch_size=8)
