"""What heads on predefined anchors share: references are the anchors, values are deltas relative to them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from aligncli.anchors import AnchorGenerator
from aligncli.matching import GroundTruth
from aligncli.models.detector import Geometry
from aligncli.models.heads.base import DenseHead, Predictions


class AnchorLoss(Protocol):
    """Matching and losses of one head."""

    @property
    def decode(self) -> Callable[[Tensor, Tensor], Tensor]:
        """References (..., 4) and deltas (..., 4) to boxes in xyxy pixels."""
        ...

    def __call__(
        self, logits: Sequence[Tensor], deltas: Tensor, references: Tensor, truth: GroundTruth
    ) -> tuple[Tensor, Tensor]:
        """Class loss and box loss, scalars, of logits (N, R_l, K) a level, deltas (N, R, 4) and anchors (R, 4)."""
        ...


class AnchorHead(DenseHead):
    """Deltas for every anchor of a cell. Subclasses implement `predict`."""

    def __init__(self, *, anchors: AnchorGenerator, loss: AnchorLoss) -> None:
        super().__init__()
        self.anchors = anchors
        self.boxes_per_cell = anchors.num_per_cell
        self.loss = loss

    def level_anchors(self, geometry: Geometry) -> list[Tensor]:
        """(H * W * A, 4) a level, not clipped."""
        return self.anchors.for_levels(geometry.shapes, geometry.strides, device=geometry.sizes.device)

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Anchors and deltas to boxes."""
        return self.loss.decode(references, values)

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"class", "box"}."""
        del geometry
        assert predictions.logits is not None
        classes, boxes = self.loss(
            predictions.logits,
            torch.cat(predictions.values, dim=1),
            torch.cat(predictions.references),
            truth,
        )
        return {"class": classes, "box": boxes}
