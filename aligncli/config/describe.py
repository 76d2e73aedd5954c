"""Recipes in words: the detector in a line, and every number under its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aligncli.config import (
    DPM,
    ADMConfig,
    AlignDetConfig,
    Alignment,
    AnchorConfig,
    Backbone,
    CocoConfig,
    CustomConfig,
    DenseDetectorConfig,
    FasterRCNNConfig,
    FPNConfig,
    Head,
    Model,
    Recipe,
    RefineDetConfig,
    RetinaNetHeadConfig,
    ShapesConfig,
    SingleLevelConfig,
    StageConfig,
    StageHeadConfig,
    TwoFCHeadConfig,
)

# What `kind` stands for, as people write it
TITLES = {
    "retinanet": "RetinaNet",
    "faster_rcnn": "Faster R-CNN",
    "rpn": "RPN",
    "ssd": "SSD",
    "metaanchor": "MetaAnchor",
    "refinedet": "RefineDet",
    "conv": "convolution",
    "deform": "deformable convolution",
    "guided": "guided deformable convolution",
    "guided_anchoring": "Guided Anchoring RetinaNet",
    "reppoints": "RepPoints",
    "fcos": "FCOS",
    "foveabox": "FoveaBox",
    "fsaf": "FSAF",
    "densebox": "DenseBox",
    "roi_conv": "RoIConv",
}


def describe_model(model: Model) -> str:
    """The detector in one line: `AlignDet, tiny, P3-P5 x 64, RetinaNet DPM, 5x5 RoIConv 128 + 1 conv 1x1`."""
    match model:
        case AlignDetConfig():
            name, parts = "AlignDet", [f"{_title(model.dpm)} DPM", _describe_adm(model.adm)]
        case DenseDetectorConfig():
            name, parts = _title(model.head), _describe_head(model.head)
        case FasterRCNNConfig():
            name, parts = TITLES[model.kind], [_describe_roi_head(model.roi_head)]
        case RefineDetConfig():
            name, parts = TITLES[model.kind], [_describe_anchors(model.anchors)]
    return ", ".join((name, _describe_backbone(model.backbone), _describe_maps(model), *parts))


def _title(part: DPM | Head | Alignment) -> str:
    return part.name if isinstance(part, CustomConfig) else TITLES.get(part.kind, part.kind)


def _describe_head(head: Head) -> list[str]:
    anchors = getattr(head, "anchors", None)
    if anchors is None:
        return []
    described = [_describe_anchors(anchors)]
    if isinstance(head, RetinaNetHeadConfig) and head.roi_conv != "none":
        size = head.roi_conv_kernel_size
        described.append(f"{size}x{size} RoIConv {head.roi_conv.replace('_', ' the ')}")
    return described


def _describe_anchors(anchors: AnchorConfig) -> str:
    return f"{anchors.num_per_cell} anchors a cell" if anchors.num_per_cell > 1 else "one anchor a cell"


def _describe_roi_head(head: TwoFCHeadConfig | StageHeadConfig) -> str:
    layers = f"two FC {head.channels}" if isinstance(head, TwoFCHeadConfig) else "the stages behind"
    return f"RoIAlign {head.resolution}x{head.resolution} + {layers}"


def _describe_backbone(backbone: Backbone) -> str:
    return getattr(backbone, "name", backbone.kind)


def _describe_maps(model: Model) -> str:
    if isinstance(model, RefineDetConfig):
        finest, coarsest = min(model.neck.levels), max(model.neck.levels)
        return f"C{finest}-C{coarsest} to P{finest}-P{coarsest} x {model.transfer.channels}"
    return _describe_neck(model.neck)


def _describe_neck(neck: FPNConfig | SingleLevelConfig | StageConfig) -> str:
    match neck:
        case FPNConfig():
            return f"P{min(neck.levels)}-P{max(neck.levels)} x {neck.channels}"
        case SingleLevelConfig():
            return f"P{neck.level} alone x {neck.channels}"
        case StageConfig():
            return f"C{neck.level}"


def _describe_adm(adm: ADMConfig) -> str:
    size = adm.conv_kernel_size
    kernel = getattr(adm.alignment, "kernel_size", None)
    shape = f"{kernel}x{kernel} " if kernel else ""
    return f"{shape}{_title(adm.alignment)} {adm.channels} + {adm.num_convs} conv {size}x{size}"


def describe_data(data: ShapesConfig | CocoConfig) -> str:
    """The data set in one line."""
    match data:
        case ShapesConfig():
            return f"shapes, {data.num_train:,} images for training and {data.num_val:,} for validation"
        case CocoConfig():
            return f"COCO folder {data.root}"


def recipe_sections(recipe: Recipe) -> dict[str, str]:
    """Every number of the recipe: one `key value, key value` line for each section, under its dotted name."""
    values = recipe.model_dump(mode="json")
    for shown_above in ("name", "summary", "paper"):
        values.pop(shown_above)
    return dict(_sections(values, prefix=""))


def _sections(values: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, str]]:
    leaves = {name: value for name, value in values.items() if not isinstance(value, dict)}
    if leaves:
        yield prefix or "recipe", "  ".join(f"{name}={_plain(value)}" for name, value in leaves.items())
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _sections(value, prefix=f"{prefix}.{name}" if prefix else name)


def _plain(value: object) -> str:
    """A value as `--set` takes it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case list():
            return ",".join(_plain(item) for item in value) + ("," if len(value) == 1 else "")
        case "":
            return '""'
        case _:
            return str(value)
