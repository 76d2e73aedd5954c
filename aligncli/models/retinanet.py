"""RetinaNet (Lin et al. 2017) with any levels and any anchors a cell (Tables 1, 2, 3 and 6)."""

from typing import Any

import torch
from torch import Tensor

from aligncli.anchors import AnchorGenerator
from aligncli.matching import GroundTruth
from aligncli.models.dense_head import DenseHead
from aligncli.models.detector import Detector, Geometry
from aligncli.models.head_loss import HeadLoss
from aligncli.models.postprocess import Candidates


class RetinaNet(Detector):
    """A dense head on predefined anchors; its features and its anchors agree only by choice of level."""

    def __init__(self, *, anchors: AnchorGenerator, head: DenseHead, loss: HeadLoss, **shared: Any) -> None:
        super().__init__(**shared)
        self.anchors = anchors
        self.head = head
        self.loss = loss

    def losses(self, features: list[Tensor], geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"class", "box"}."""
        logits = torch.cat(self.head.classify(features), dim=1)
        deltas = torch.cat(self.head.regress(features), dim=1)
        anchors = torch.cat(self.level_anchors(geometry))
        classes, boxes = self.loss(logits, deltas, anchors, truth)
        return {"class": classes, "box": boxes}

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """Logits and deltas of every anchor."""
        outputs = zip(
            self.head.classify(features),
            self.head.regress(features),
            self.level_anchors(geometry),
            strict=True,
        )
        return [Candidates(*level, stds=self.loss.box_stds) for level in outputs]

    def level_anchors(self, geometry: Geometry) -> list[Tensor]:
        """(H * W * A, 4) a level, not clipped."""
        return self.anchors.for_levels(geometry.shapes, geometry.strides, device=geometry.sizes.device)
