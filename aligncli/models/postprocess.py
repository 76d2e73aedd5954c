"""From dense predictions to detections: score cut, top candidates a level, decode, class-wise NMS.

Section 5.1: scores above .05, 1000 candidates a level, NMS at IoU .5, 100 detections an image.
The order matters for speed: top-k runs on logits, rows before classes, and only the survivors are decoded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from aligncli.boxes import clip_boxes, to_float64


@dataclass(frozen=True)
class Candidates:
    """One level of R predictions an image, not decoded yet.

    logits (N, R, K): their sigmoid is the score. values (N, R, 4), or (N, R, K, 4) where each class has a box of
    its own: in the head's encoding, relative to references, (R, 4) or (N, R, 4). decode: references and values,
    (..., 4) each, to xyxy pixels.
    """

    logits: Tensor
    values: Tensor
    references: Tensor
    decode: Callable[[Tensor, Tensor], Tensor]

    def chosen(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """References and values, (N, T, 4) each, of some rows (N, T) and of their classes (N, T)."""
        num_images, _, num_classes = self.logits.shape
        references = self.references.expand(num_images, -1, -1).gather(1, rows[..., None].expand(-1, -1, 4))
        own = rows * num_classes + labels if self.values.dim() == 4 else rows
        return references, self.values.flatten(1, -2).gather(1, own[..., None].expand(-1, -1, 4))


class Postprocess(nn.Module):
    """Candidates of all levels to a list of {"boxes" (D, 4), "scores" (D,), "labels" (D,)} an image."""

    def __init__(
        self,
        *,
        score_threshold: float,
        candidates_per_level: int,
        nms_threshold: float,
        detections_per_image: int,
    ) -> None:
        super().__init__()
        self.logit_threshold = logit(score_threshold)
        self.candidates_per_level = candidates_per_level
        self.nms_threshold = nms_threshold
        self.detections_per_image = detections_per_image

    def forward(self, levels: Sequence[Candidates], sizes: Tensor) -> list[dict[str, Tensor]]:
        """`sizes` (N, 2): image heights and widths in pixels, to which boxes are clipped."""
        best = [best_logits(level.logits, self.candidates_per_level) for level in levels]
        logits, rows, labels = zip(*best, strict=True)
        boxes = clip_boxes(decode_levels(levels, rows, labels), sizes)
        logits, labels = torch.cat(logits, dim=1).float(), torch.cat(labels, dim=1)
        image, row = (logits > self.logit_threshold).nonzero(as_tuple=True)
        boxes, scores, labels = boxes[image, row], logits[image, row].sigmoid(), labels[image, row]
        # One NMS for the batch: group = image and class. It tells groups apart by shifting their boxes,
        # which in float32 would cost small boxes their fraction of a pixel.
        group = image * (int(labels.max()) + 1 if len(labels) else 1) + labels
        exact = to_float64(boxes)
        kept = batched_nms(exact, to_float64(scores), group.to(exact.device), self.nms_threshold).to(boxes.device)
        image, boxes, scores, labels = image[kept], boxes[kept], scores[kept], labels[kept]
        detections = []
        for index in range(len(sizes)):
            mine = (image == index).nonzero().squeeze(1)[: self.detections_per_image]
            detections.append({"boxes": boxes[mine], "scores": scores[mine], "labels": labels[mine]})
        return detections


def decode_levels(levels: Sequence[Candidates], rows: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Boxes (N, T, 4) of some rows of every level, and of their classes, (N, T_l) each.

    Neighbours that share a `decode`, as the levels of one head do, are decoded in one call.
    """
    boxes = []
    for decode, group in groupby(zip(levels, rows, labels, strict=True), key=lambda choice: choice[0].decode):
        references, values = zip(*(level.chosen(*choice) for level, *choice in group), strict=True)
        boxes.append(decode(torch.cat(references, dim=1), torch.cat(values, dim=1).float()))
    return torch.cat(boxes, dim=1)


def best_logits(logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` largest of an image's logits (N, R, K), or all, descending, with their rows and classes: (N, T) each.

    They lie in the `count` rows with the largest maxima, so that only those rows are looked through class by class.
    """
    _, num_rows, num_classes = logits.shape
    rows = logits.amax(dim=2).topk(min(count, num_rows), dim=1).indices
    chosen = logits.gather(1, rows[..., None].expand(-1, -1, num_classes)).flatten(1)
    best, index = chosen.topk(min(count, chosen.shape[1]), dim=1)
    return best, rows.gather(1, index // num_classes), index % num_classes


def logit(probability: float) -> float:
    """Inverse of the sigmoid; minus infinity at 0, infinity at 1."""
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
