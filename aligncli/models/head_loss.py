"""The loss of a dense head: focal over classes, smooth L1 over boxes, one normaliser (section 5.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aligncli.boxes import decode_boxes
from aligncli.losses import box_loss, focal_loss, loss_normalizer
from aligncli.matching import GroundTruth, Matcher


@dataclass(frozen=True, kw_only=True)
class DeltaLoss:
    """What every loss on deltas holds: who learns what, and how deltas read as boxes."""

    matcher: Matcher
    smooth_l1_beta: float
    weight: float
    box_stds: tuple[float, float, float, float]

    def decode(self, references: Tensor, deltas: Tensor) -> Tensor:
        """Deltas (..., 4) relative to references (..., 4) to boxes in xyxy pixels."""
        return decode_boxes(references, deltas, self.box_stds)


def join_levels(logits: Tensor | Sequence[Tensor]) -> Tensor:
    """(N, R, K), for a loss that looks at all rows together."""
    return logits if isinstance(logits, Tensor) else torch.cat(list(logits), dim=1)


@dataclass(frozen=True, kw_only=True)
class HeadLoss(DeltaLoss):
    """Matching and loss settings of one head; AlignDet has two of them with different thresholds (Table 5)."""

    focal_alpha: float
    focal_gamma: float
    normalizer: str

    def __call__(
        self, logits: Sequence[Tensor], deltas: Tensor, references: Tensor, truth: GroundTruth
    ) -> tuple[Tensor, Tensor]:
        """Class loss and box loss, scalars.

        Args:
            logits: (N, R_l, K) a level, level after level R of them; they are overwritten where they have a gradient,
                see `focal_loss`. deltas: (N, R, 4), relative to references.
            references: (R, 4) or (N, R, 4) xyxy pixels: predefined anchors, or refined ones.
        """
        matches = self.matcher(references, truth)
        scale = self.weight / loss_normalizer(matches, self.normalizer)
        # In this order: what the boxes' loss computes on the way is gone when the focal loss keeps its gradient.
        boxes = box_loss(deltas, references, matches, beta=self.smooth_l1_beta, stds=self.box_stds)
        classes = focal_loss(logits, matches.labels, alpha=self.focal_alpha, gamma=self.focal_gamma, overwrite=True)
        return classes * scale, boxes * scale
