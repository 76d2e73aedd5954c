"""Class-wise non-maximum suppression as one node of an exported graph, and what the node becomes in each format.

Boxes are xyxy. In PyTorch it is torchvision's operator on boxes that are moved apart by class and image, in float64
as in models/postprocess.py; in ONNX it is NonMaxSuppression, which tells classes and images apart by itself.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms


@torch.library.custom_op("aligncli::class_nms", mutates_args=())
def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_threshold: float) -> Tensor:
    """Which of T boxes an image stay: (N, T) bool.

    boxes: (N, T, 4). scores: (N, T), those that are not above 0 go. labels: (N, T) int64.
    """
    return in_torch(boxes, scores, labels, num_classes, iou_threshold)


@torch.library.register_fake("aligncli::class_nms")
def _(_boxes: Tensor, scores: Tensor, _labels: Tensor, _num_classes: int, _iou_threshold: float) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


def in_torch(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_threshold: float) -> Tensor:
    """`class_nms` of torchvision's operator."""
    num_images, num_boxes = scores.shape
    group = labels + num_classes * torch.arange(num_images, device=labels.device)[:, None]
    apart = boxes.double() + (group * (boxes.amax() + 1)).double()[..., None]
    kept = nms(apart.flatten(0, 1), scores.double().flatten(), iou_threshold)
    mask = torch.zeros(num_images * num_boxes, dtype=torch.bool, device=boxes.device)
    return mask.index_fill(0, kept, True).view(num_images, num_boxes) & (scores > 0)


def in_onnx(boxes: Any, scores: Any, labels: Any, num_classes: int, iou_threshold: float) -> Any:
    """`class_nms` of ONNX's operator; called by the exporter, with values of the graph."""
    import onnxscript

    op: Any = onnxscript.opset18
    classes = op.Constant(value_ints=list(range(num_classes)))
    own = op.Equal(op.Unsqueeze(labels, [1]), op.Unsqueeze(classes, [0, 2]))  # (N, K, T)
    by_class = op.Where(own, op.Unsqueeze(scores, [1]), op.Constant(value_float=0.0))
    num_boxes = op.Shape(scores, start=1, end=2)
    selected = op.NonMaxSuppression(
        boxes,
        by_class,
        num_boxes,
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.0]),
    )  # (S, 3) as (image, class, box)
    index = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    none = op.ConstantOfShape(op.Shape(scores))  # float zeros
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(selected, start=0, end=1))
    return op.Greater(op.ScatterND(none, index, ones), op.Constant(value_float=0.0))
