"""The exported computation: images in, a fixed number of detections an image out.

Everything between is in the graph: normalisation, padding to the detector's divisor, the network, NMS. Sizes are not
looked at by Python, so the graph serves images of any height and width. Boxes are xyxy pixels of the images as given.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.boxes import clip_boxes
from aligncli.engine.export.class_nms import class_nms
from aligncli.models.detector import Detector
from aligncli.models.postprocess import Candidates, decode_levels


class DetectionGraph(nn.Module):
    """What `Detector.forward` does in evaluation mode, with results of one shape.

    Args:
        detector: in evaluation mode; one whose `detect` is post-processing of its `candidates`.
    """

    def __init__(self, detector: Detector, *, num_classes: int) -> None:
        super().__init__()
        self.detector = detector
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images: (N, 3, h, w) float32 RGB, 0..1.

        Returns boxes (N, D, 4) float32, scores (N, D) float32 descending, and labels (N, D) int64, D being the
        detector's limit, or all candidates of its levels where they are fewer. Where there are fewer detections
        the rest has label -1, score 0 and a box of zeros.
        """
        detector = self.detector
        num_images, _, height, width = images.shape
        divisor = detector.size_divisor
        pixels = (images - detector.pixel_mean) / detector.pixel_std
        pixels = F.pad(pixels, (0, -width % divisor, 0, -height % divisor))
        features = detector.neck(detector.backbone(pixels))
        sides = [torch.full((num_images,), side, device=images.device) for side in (height, width)]
        geometry = detector.geometry(features, torch.stack(sides, dim=1))
        candidates = detector.candidates(features, geometry)
        return self._postprocess(candidates, geometry.sizes)

    def _postprocess(self, levels: list[Candidates], sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Postprocess of models/postprocess.py, without a shape that depends on what was detected."""
        settings = self.detector.postprocess
        logits, rows, labels = zip(*(self._best(level) for level in levels), strict=True)
        boxes = clip_boxes(decode_levels(levels, rows, labels), sizes)
        logits, labels = torch.cat(logits, dim=1), torch.cat(labels, dim=1)  # (N, T)
        scores = torch.where(logits > settings.logit_threshold, logits.sigmoid(), 0.0)
        kept = class_nms(boxes, scores, labels, self.num_classes, settings.nms_threshold)
        num_detections = min(settings.detections_per_image, scores.shape[1])
        scores, row = torch.where(kept, scores, 0.0).topk(num_detections, dim=1)
        found = scores > 0
        labels = torch.where(found, labels.gather(1, row), -1)
        boxes = boxes.gather(1, row[..., None].expand(-1, -1, 4))
        return torch.where(found[..., None], boxes, 0.0), scores, labels

    def _best(self, level: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        """The best T candidates of a level, with logit -inf where it has fewer: logits, rows and classes, (N, T)."""
        num_images, num_rows, num_classes = level.logits.shape
        number = self.detector.postprocess.candidates_per_level
        nothing = level.logits.new_full((num_images, number), -torch.inf)
        logits, index = torch.cat([level.logits.flatten(1), nothing], dim=1).topk(number, dim=1)
        index = index.clamp(max=num_rows * num_classes - 1)
        return logits, index // num_classes, index % num_classes
