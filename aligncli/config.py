"""Recipes as frozen, typed data: every number of an experiment, nothing else.

A recipe is complete (no hidden defaults elsewhere), prints on one screen, travels with its run as JSON
and rebuilds it. Defaults are the paper's (section 5.1) unless a comment says otherwise. `kind` fields tell
the members of a union apart; `build.py` holds the one `match` statement for each of them.
Thresholds are IoUs in 0..1, box sides are pixels of the network input, scales are multiples of a stride.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligncli.errors import RecipeError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class Config(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- model parts


class BackboneConfig(Config):
    """`tiny` is the small-scale stand-in, everything else is torchvision's."""

    name: Literal["resnet50", "resnet101", "resnext101_32x8d", "tiny"] = "resnet50"
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2  # stem (conv1) and conv2_x, as in the paper
    frozen_norm: bool = True
    tiny_widths: tuple[Count, Count, Count, Count, Count] = (16, 32, 64, 96, 128)


class FPNConfig(Config):
    """Feature pyramid with one map a level, stride 2**level. P6 comes from C5, P7 from relu(P6)."""

    kind: Literal["fpn"] = "fpn"
    levels: tuple[Annotated[int, Field(ge=2, le=7)], ...] = (3, 4, 5, 6, 7)
    channels: Count = 256


class SingleLevelConfig(Config):
    """One map, for Tables 1 and 2. `top_down` merges the coarser stages into it as an FPN would."""

    kind: Literal["single_level"] = "single_level"
    level: Annotated[int, Field(ge=2, le=5)] = 4
    channels: Count = 256
    top_down: bool = True


Neck = Annotated[FPNConfig | SingleLevelConfig, Field(discriminator="kind")]


class AnchorConfig(Config):
    """Anchors of one cell: every scale with every ratio. Side = scale * stride, ratio = height / width."""

    scales: tuple[Positive, ...] = (4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3))
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)


class MatcherConfig(Config):
    """IoU >= foreground is positive, < background is negative, between is ignored.

    With `low_quality`, each ground truth's best anchor is positive whatever its IoU.
    """

    foreground: Fraction = 0.5
    background: Fraction = 0.4
    low_quality: bool = True


class LossConfig(Config):
    """Focal loss for classes and smooth L1 for boxes, both summed and divided by the normaliser."""

    focal_alpha: Fraction = 0.25
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    smooth_l1_beta: Positive = 0.11
    normalizer: Literal["positives", "positives_plus_one"] = "positives"
    weight: Annotated[float, Field(ge=0.0)] = 1.0
    box_stds: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)


class TowerConfig(Config):
    """Two stacks of 3x3 convolutions, one for classes and one for boxes, before the predictors."""

    num_convs: NonNegative = 4
    channels: Count = 256
    norm: Literal["none", "group"] = "none"


class RetinaNetDPMConfig(Config):
    """RetinaNet with one anchor a cell as the dense proposal module (sections 4.3 and 5.1)."""

    kind: Literal["retinanet"] = "retinanet"
    anchors: AnchorConfig = AnchorConfig(scales=(4.0,), ratios=(1.0,))
    tower: TowerConfig = TowerConfig()
    matcher: MatcherConfig = MatcherConfig(foreground=0.4, background=0.3)
    loss: LossConfig = LossConfig()
    min_side: Positive = 1.0  # refined anchors are at least this wide and high


DPM = RetinaNetDPMConfig


class RoIConvConfig(Config):
    """Alignment (d): sample inside each location's refined anchor. `finest_kernel_size` is 7x7-dagger."""

    kind: Literal["roi_conv"] = "roi_conv"
    kernel_size: Count = 7
    finest_kernel_size: Count | None = None


Alignment = RoIConvConfig


class ADMConfig(Config):
    """Aligned detection module: one aligned convolution, then one trunk for classes and boxes.

    The paper's heads: 3x3 aligned 256 + four 3x3 256 (`num_convs=4, conv_kernel_size=3`), and
    k x k aligned 1024 + one 1x1 1024 (`num_convs=1, conv_kernel_size=1`).
    """

    alignment: Alignment = RoIConvConfig()
    channels: Count = 1024
    num_convs: NonNegative = 1
    conv_kernel_size: Literal[1, 3] = 1
    predictor_kernel_size: Literal[1, 3] = 1
    norm: Literal["none", "group"] = "none"
    matcher: MatcherConfig = MatcherConfig(foreground=0.7, background=0.7)
    loss: LossConfig = LossConfig()


class PostprocessConfig(Config):
    """Score cut, top candidates a level, class-wise NMS, detections an image (section 5.1)."""

    score_threshold: Fraction = 0.05
    candidates_per_level: Count = 1000
    nms_threshold: Fraction = 0.5
    detections_per_image: Count = 100


class RetinaNetConfig(Config):
    """RetinaNet with any levels and any anchors a cell (Tables 1, 2, 3 and 6)."""

    kind: Literal["retinanet"] = "retinanet"
    backbone: BackboneConfig = BackboneConfig()
    neck: Neck = FPNConfig()
    anchors: AnchorConfig = AnchorConfig()
    tower: TowerConfig = TowerConfig()
    matcher: MatcherConfig = MatcherConfig()
    loss: LossConfig = LossConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


class AlignDetConfig(Config):
    """Fully Convolutional AlignDet: DPM + ADM (section 4.3, Figure 2)."""

    kind: Literal["aligndet"] = "aligndet"
    backbone: BackboneConfig = BackboneConfig()
    neck: Neck = FPNConfig()
    dpm: DPM = RetinaNetDPMConfig()
    adm: ADMConfig = ADMConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


Model = Annotated[RetinaNetConfig | AlignDetConfig, Field(discriminator="kind")]


# ---------------------------------------------------------------- data, schedule, evaluation


class ShapesConfig(Config):
    """The embedded procedural data set. Images are a function of (seed, index); splits use disjoint seeds."""

    kind: Literal["shapes"] = "shapes"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 128
    num_train: Count = 4000
    num_val: Count = 200
    train_seed: NonNegative = 1
    val_seed: NonNegative = 2
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
    unreadable: Literal["error", "skip"] = "error"


Data = Annotated[ShapesConfig | CocoConfig, Field(discriminator="kind")]


class InputConfig(Config):
    """Resize to a short side within `long_side`, keeping the aspect; one short side is drawn an image."""

    min_short_side: Count = 800
    max_short_side: Count = 800  # train only: jitter between the two; evaluation uses max_short_side
    long_side: Count = 1333
    flip_probability: Fraction = 0.5
    size_divisor: Count = 32
    aspect_grouping: bool = True
    workers: NonNegative = 2


class SGDConfig(Config):
    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.01  # for `reference_batch` images a step; scaled linearly to the real batch
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    reference_batch: Count = 16


class AdamWConfig(Config):
    kind: Literal["adamw"] = "adamw"
    lr: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    reference_batch: Count = 8


Optimizer = Annotated[SGDConfig | AdamWConfig, Field(discriminator="kind")]


class StepDecayConfig(Config):
    """Linear warm-up from lr * warmup_factor, then lr / 10 at each fraction of the iterations."""

    kind: Literal["steps"] = "steps"
    warmup_iterations: NonNegative = 500
    warmup_factor: Fraction = 1 / 3
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
    accumulate: Count = 1  # parts a step is split into; batch_size must be a multiple
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


class OpsConfig(Config):
    backend: Literal["auto", "portable", "reference"] = "auto"  # who computes RoIConv


class Recipe(Config):
    """One experiment. `weights` starts the model: nothing, a packaged file, ImageNet, or a path."""

    name: str
    summary: str
    paper: str = ""  # the section or table that it reproduces
    seed: NonNegative = 0
    model: Model = AlignDetConfig()
    weights: str = "none"  # none | shapes | imagenet | path to a .safetensors file
    data: Data = ShapesConfig()
    input: InputConfig = InputConfig()
    optimizer: Optimizer = SGDConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ops: OpsConfig = OpsConfig()

    def changed(self, changes: Mapping[str, object]) -> Recipe:
        """A copy with dotted keys replaced, for example `{"model.backbone.name": "resnet101"}`.

        A union member is chosen by its kind alone (`{"optimizer": "sgd"}` takes SGD's defaults).
        Raises RecipeError for an unknown key, naming the nearest one, or a value that is not allowed.
        """
        values = self.model_dump()
        for key, value in changes.items():
            _replace(values, key, value)
        return parse_recipe(values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Validate plain data (a recipe's JSON) into a Recipe. Raises RecipeError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error, values)) from error


def recipe_keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every dotted key of a dumped recipe, leaves and sections."""
    keys = []
    for name, value in values.items():
        keys.append(prefix + name)
        if isinstance(value, dict):
            keys.extend(recipe_keys(value, f"{prefix}{name}."))
    return keys


def _replace(values: dict[str, Any], key: str, value: object) -> None:
    section = values
    *parents, leaf = key.split(".")
    for name in parents:
        if not isinstance(section.get(name), dict):
            raise _unknown_key(values, key)
        section = section[name]
    if leaf not in section:
        raise _unknown_key(values, key)
    if value == "none" and not isinstance(section[leaf], str):
        value = None  # "none" is a word of some keys (weights, amp) and nothing at all for the others
    if isinstance(section[leaf], dict) and isinstance(value, str):
        value = {"kind": value}
    section[leaf] = value


def _unknown_key(values: Mapping[str, Any], key: str) -> RecipeError:
    """Nearest by the whole key or by its last part alone: "lr" finds "optimizer.lr"."""

    def nearness(known: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, key, known).ratio()
        last = difflib.SequenceMatcher(None, key.rsplit(".", 1)[-1], known.rsplit(".", 1)[-1]).ratio()
        return max(whole, last), whole

    near = max(recipe_keys(values), key=nearness)
    found = nearness(near)[0] >= 0.5
    hint = f"did you mean {near!r}?" if found else f"top-level keys are {', '.join(values)}"
    return RecipeError(f"unknown recipe key {key!r}: {hint}")


def _explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first fault of a validation error in one line: key, value, what was expected."""
    fault = error.errors(include_url=False)[0]
    key = _dotted_key(fault["loc"], values) or "recipe"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"recipe key {key!r}: {fault['msg']}, got {reprlib.repr(fault.get('input'))}{more}"


def _dotted_key(location: tuple[int | str, ...], values: Mapping[str, Any]) -> str:
    """A fault's location as the user writes it: without the union tags that pydantic puts into it."""
    parts: list[str] = []
    section: Any = values
    for part in location:
        inside = isinstance(section, Mapping)
        if inside and part not in section and part == section.get("kind"):
            continue
        parts.append(str(part))
        section = section.get(part) if inside else None
    return ".".join(parts)
