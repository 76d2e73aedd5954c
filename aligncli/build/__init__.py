"""From a recipe to working parts: one `match` statement for each union of config/, nothing hidden.

To add a backbone, neck, head, alignment, detector or data set: write its class, its config, its case here
(detectors and data below; parts.py, heads.py, adm.py, refinedet.py and two_stage.py hold the rest; custom.py calls
a user's own).
"""

from typing import Any

from aligncli.build.adm import build_adm
from aligncli.build.custom import NO_PARTS, Parts
from aligncli.build.heads import build_head
from aligncli.build.parts import build_backbone, build_loss, build_neck, build_postprocess, leave_out_unread
from aligncli.build.refinedet import build_refinedet
from aligncli.build.two_stage import build_faster_rcnn
from aligncli.config import (
    AlignDetConfig,
    CocoConfig,
    DenseDetectorConfig,
    FasterRCNNConfig,
    Recipe,
    RefineDetConfig,
    ShapesConfig,
    StageHeadConfig,
)
from aligncli.data.coco import CocoDataset
from aligncli.data.dataset import DetectionDataset, Split
from aligncli.data.shapes import ShapesDataset
from aligncli.models.aligndet import AlignDet
from aligncli.models.dense_detector import DenseDetector
from aligncli.models.detector import Detector
from aligncli.models.quick_gradients import quicken_gradients

__all__ = ["NO_PARTS", "Parts", "build_dataset", "build_datasets", "build_model"]


def build_model(recipe: Recipe, num_classes: int, *, parts: Parts = NO_PARTS) -> Detector:
    """The recipe's detector, randomly initialised and in training mode; `weights` are loaded by the engine.

    `parts` are the user's own classes by name, for `kind = "custom"`. Raises RecipeError where one is missing, or
    makes something else than its place needs.
    """
    detector = _build_detector(recipe, num_classes, parts)
    quicken_gradients(detector)
    return detector


def _build_detector(recipe: Recipe, num_classes: int, parts: Parts) -> Detector:
    model = recipe.model
    backbone = build_backbone(model.backbone, parts)
    shared: dict[str, Any] = {
        "backbone": backbone,
        "postprocess": build_postprocess(model.postprocess),
        "size_divisor": recipe.input.size_divisor,
        "num_classes": num_classes,
    }
    if isinstance(model, RefineDetConfig):  # on the backbone's own maps, each with channels of its own
        return build_refinedet(model, **shared)
    neck = build_neck(model.neck, backbone)
    if not (isinstance(model, FasterRCNNConfig) and isinstance(model.roi_head, StageHeadConfig)):
        leave_out_unread(backbone, neck)
    shared |= {"neck": neck, "strides": neck.strides}
    match model:
        case DenseDetectorConfig():
            head = build_head(model.head, neck.channels, num_classes, neck.strides, recipe.ops, parts)
            return DenseDetector(head=head, **shared)
        case AlignDetConfig():
            return AlignDet(
                dpm=build_head(model.dpm, neck.channels, num_classes, neck.strides, recipe.ops, parts),
                min_side=model.min_side,
                adm=build_adm(model.adm, neck.channels, num_classes, neck.strides, recipe.ops, parts),
                loss=build_loss(model.adm.loss, model.adm.matcher),
                **shared,
            )
        case FasterRCNNConfig():
            return build_faster_rcnn(model, **shared)


def build_datasets(recipe: Recipe) -> tuple[DetectionDataset, DetectionDataset]:
    """The training and the validation set. Raises DataError."""
    return build_dataset(recipe, "train"), build_dataset(recipe, "val")


def build_dataset(recipe: Recipe, split: Split) -> DetectionDataset:
    """One split, "train" or "val". Raises DataError."""
    match recipe.data:
        case ShapesConfig():
            return ShapesDataset(recipe.data, split)
        case CocoConfig():
            return CocoDataset(recipe.data, split)
