"""How well boxes that are fixed beforehand cover a data set's objects: anchors of a recipe, implicit RoIs (eq. 3).

Every box of a level has its cell's centre, so an object's best one is at the cell nearest to its centre: along either
axis the overlap of two intervals only shrinks with the distance of their middles. Boxes xyxy, pixels of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aligncli.anchors import AnchorGenerator
from aligncli.config import AnchorConfig, FPNConfig, InputConfig, Recipe, SingleLevelConfig
from aligncli.data.dataset import DetectionDataset
from aligncli.data.transforms import resized_size
from aligncli.errors import RecipeError

RECALL_IOU = 0.5
DEFAULT_SCALE = 4.0  # strides, the paper's; for heads without anchors
RATIOS = (0.5, 1.0, 2.0)
IMPLICIT_KERNEL = 3  # of the convolutions in a head

Shapes = Sequence[tuple[float, float]]  # (width, height) in strides, of every box of a cell


@dataclass(frozen=True)
class Coverage:
    """Of one kind of box: how many a cell has, the mean over objects of the best IoU, and recall at RECALL_IOU."""

    name: str
    num_per_cell: int
    mean_best_iou: float
    recall: float


def measure_coverage(dataset: DetectionDataset, recipe: Recipe) -> list[Coverage]:
    """The recipe's own anchors if it has any, one square anchor, nine, and the implicit RoIs of a 3x3 convolution.

    Objects are those that are no crowd, in images resized as for evaluation. Without objects the figures are NaN.
    Raises RecipeError for a recipe whose levels are not those of a pyramid or of one map.
    """
    strides = _strides(recipe)
    boxes, sizes = _objects(dataset, recipe.input)
    found = []
    for name, shapes in _contenders(_anchors(recipe)).items():
        best = best_ious(boxes, sizes, shapes, strides)
        mean = float(best.mean()) if len(best) else float("nan")
        recall = float((best >= RECALL_IOU).mean()) if len(best) else float("nan")
        found.append(Coverage(name, len(shapes), mean, recall))
    return found


def best_ious(boxes: np.ndarray, sizes: np.ndarray, shapes: Shapes, strides: Sequence[int]) -> np.ndarray:
    """Best IoU of each box with a box at any cell of any level.

    boxes: (B, 4). sizes: (B, 2), height and width of each box's image, padded. Returns (B,).
    """
    best = np.zeros(len(boxes))
    low, high = boxes[:, :2], boxes[:, 2:]
    centers, sides = (low + high) / 2, high - low  # (B, 2), x and y
    for stride in strides:
        cells = np.ceil(sizes[:, ::-1] / stride)
        nearest = np.clip(np.floor(centers / stride), 0, cells - 1)
        distance = np.abs(centers - (nearest + 0.5) * stride)
        for shape in shapes:
            fixed = np.array(shape) * stride
            shared = np.minimum(np.minimum(sides, fixed), (sides + fixed) / 2 - distance).clip(min=0).prod(axis=1)
            best = np.maximum(best, shared / (sides.prod(axis=1) + fixed.prod() - shared))
    return best


def _contenders(own: AnchorConfig | None) -> dict[str, Shapes]:
    scale = min(own.scales) if own else DEFAULT_SCALE
    nine = AnchorConfig(scales=tuple(scale * 2 ** (step / 3) for step in range(3)), ratios=RATIOS)
    contenders: dict[str, Shapes] = {"its own anchors": _shapes(own)} if own else {}
    contenders[f"one square anchor, {scale:.3g} strides"] = [(scale, scale)]
    contenders["nine anchors, RetinaNet's way"] = _shapes(nine)
    contenders["implicit RoIs, 3x3 convolution"] = [(IMPLICIT_KERNEL, IMPLICIT_KERNEL)]
    return contenders


def _shapes(anchors: AnchorConfig) -> Shapes:
    return AnchorGenerator(scales=anchors.scales, ratios=anchors.ratios, square_scales=anchors.square_scales).shapes


def _anchors(recipe: Recipe) -> AnchorConfig | None:
    """Of the part of the model that has anchors."""
    model = recipe.model
    parts = (model, *(getattr(model, name, None) for name in ("dpm", "head", "rpn")))
    found = (getattr(part, "anchors", None) for part in parts)
    return next((anchors for anchors in found if isinstance(anchors, AnchorConfig)), None)


def _strides(recipe: Recipe) -> list[int]:
    match recipe.model.neck:
        case FPNConfig(levels=levels):
            return [2**level for level in levels]
        case SingleLevelConfig(level=level):
            return [2**level]
        case other:
            raise RecipeError(
                f"recipe {recipe.name!r} has neck {other.kind!r}: expected one with levels, fpn or single_level"
            )


def _objects(dataset: DetectionDataset, part: InputConfig) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (B, 4) in pixels of the network input, and the padded (height, width) of each one's image (B, 2)."""
    truth = dataset.ground_truth()
    resized = [
        resized_size(height, width, short_side=part.max_short_side, long_side=part.long_side)
        for height, width in dataset.sizes.tolist()
    ]
    rows = {image["id"]: row for row, image in enumerate(truth["images"])}
    records = [record for record in truth["annotations"] if not record["iscrowd"] and min(record["bbox"][2:]) > 0]
    owners = np.array([rows[record["image_id"]] for record in records], dtype=np.int64)
    x, y, width, height = np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4).T
    sizes = np.array(resized, dtype=np.float64).reshape(-1, 2)
    ratio_y, ratio_x = (sizes / dataset.sizes)[owners].T
    boxes = np.stack([x * ratio_x, y * ratio_y, (x + width) * ratio_x, (y + height) * ratio_y], axis=1)
    padded = np.ceil(sizes / part.size_divisor) * part.size_divisor
    return boxes, padded[owners]
