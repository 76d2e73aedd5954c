"""Data, input, optimizer, schedule and evaluation as data. Defaults are the paper's (section 5.1)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aligncli.config.base import Config, Count, Fraction, NonNegative, Positive, Seed


class ShapesConfig(Config):
    """The embedded procedural data set. Images are a function of (seed, index); splits use disjoint seeds."""

    kind: Literal["shapes"] = "shapes"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 128
    num_train: Count = 4000
    num_val: Count = 200
    train_seed: Seed = 1
    val_seed: Seed = 2
    min_size: Positive = 14.0  # sqrt(w h), pixels
    max_size: Positive = 100.0
    fit_large: bool = False  # limit the aspect of large objects so that they fit, instead of rejecting them


class CocoConfig(Config):
    """A folder in COCO instance format. Annotation paths are relative to `root`."""

    kind: Literal["coco"] = "coco"
    root: str
    images: str = "images"  # "{split}" in it is replaced, as in COCO's own train2017/val2017
    train_annotations: str = "annotations/instances_train.json"
    val_annotations: str = "annotations/instances_val.json"
    test_annotations: str = "annotations/image_info_test-dev2017.json"  # COCO's list of images; it keeps the boxes
    unreadable: Literal["error", "skip"] = "error"
    min_decoded_side: NonNegative = 0  # decode JPEG files at 1/2, 1/4 or 1/8 where this short side is left; 0: whole


Data = Annotated[ShapesConfig | CocoConfig, Field(discriminator="kind")]


class InputConfig(Config):
    """Resize to a short side within `long_side`, keeping the aspect; one short side is drawn an image."""

    min_short_side: Count = 800
    max_short_side: Count = 800  # train only: jitter between the two; evaluation uses max_short_side
    long_side: Count = 1333
    flip_probability: Fraction = 0.5
    size_divisor: Count = 32
    aspect_grouping: bool = True
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    timeout: Positive = 300.0  # seconds for one batch from the workers; then the run ends, naming the images


class SGDConfig(Config):
    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.01  # for `reference_batch` images a step; scaled linearly to the real batch
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    reference_batch: Count = 16
    lr_factors: dict[str, Positive] = Field(default_factory=dict)  # of parameters by the beginning of their names


class AdamWConfig(Config):
    kind: Literal["adamw"] = "adamw"
    lr: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    reference_batch: Count = 8
    lr_factors: dict[str, Positive] = Field(default_factory=dict)  # of parameters by the beginning of their names


Optimizer = Annotated[SGDConfig | AdamWConfig, Field(discriminator="kind")]


class StepDecayConfig(Config):
    """Linear warm-up from lr * warmup_factor, then lr / 10 at each fraction of the iterations."""

    kind: Literal["steps"] = "steps"
    warmup_iterations: NonNegative = 500
    warmup_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 1 / 3
    decay_at: tuple[Fraction, ...] = (60 / 90, 80 / 90)  # of the iterations, so a shorter run keeps the shape
    decay_factor: Fraction = 0.1


class OneCycleConfig(Config):
    """torch's OneCycleLR (cosine), without momentum cycling."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_fraction: Fraction = 0.1


Decay = Annotated[StepDecayConfig | OneCycleConfig, Field(discriminator="kind")]


class ScheduleConfig(Config):
    iterations: Count = 90_000  # optimizer steps
    batch_size: Count = 16  # images a step, over all accumulation parts
    # Parts a step is split into, for less memory; batch_size must be a multiple. A part's losses are divided by its own
    # positives and then averaged, so images count a little differently than in one batch, which divides by all
    accumulate: Count = 1
    decay: Decay = StepDecayConfig()
    clip_norm: Positive | None = None
    amp: Literal["none", "bf16", "fp16"] = "none"
    log_every: Count = 20
    checkpoint_every: Count = 5000
    eval_every: NonNegative = 0  # 0: once, at the end


class EvaluationConfig(Config):
    evaluator: Literal["auto", "hotcoco", "pycocotools"] = "auto"
    area_bins: tuple[Positive, Positive] = (32.0**2, 96.0**2)  # small | medium | large, in pixels
    batch_size: Count = 4

    @model_validator(mode="after")
    def _areas_grow(self) -> Self:
        small, large = self.area_bins
        if small >= large:
            raise ValueError(f"area_bins is {small:g}, {large:g}: expected two growing areas in square pixels")
        return self


class OpsConfig(Config):
    backend: Literal["auto", "native", "fused", "portable", "reference"] = "auto"  # who computes RoIConv
