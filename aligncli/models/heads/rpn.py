"""The region proposal network (Ren et al. 2015) as a DPM: class-agnostic objectness and deltas (section 4.3).

One 3x3 convolution for both predictors, shared by all levels as in FPN (Lin et al. 2017); the loss sees 256
random anchors an image, half of them positive where there are enough. It knows no classes, so it is no detector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.anchors import AnchorGenerator
from aligncli.losses import box_loss, count_normalizer
from aligncli.matching import GroundTruth
from aligncli.models.branches import flatten_cells, init_gaussian
from aligncli.models.detector import Geometry
from aligncli.models.head_loss import DeltaLoss, join_levels
from aligncli.models.heads.anchor_head import AnchorHead
from aligncli.models.heads.base import Predictions
from aligncli.models.sampling import sample_balanced


@dataclass(frozen=True, kw_only=True)
class RPNLoss(DeltaLoss):
    """Matching, sampling and loss settings of the RPN (Faster R-CNN, section 3.1.2 and 3.1.3)."""

    samples_per_image: int
    positive_fraction: float

    def __call__(
        self, logits: Tensor | Sequence[Tensor], deltas: Tensor, references: Tensor, truth: GroundTruth
    ) -> tuple[Tensor, Tensor]:
        """Objectness loss and box loss, scalars; both are divided by the number of sampled anchors.

        With several processes each draws its images' anchors from a random stream of its own.

        Args:
            logits: (N, R, 1), or one such tensor a level. deltas: (N, R, 4), relative to references (R, 4), in xyxy
                pixels.
        """
        matches = self.matcher(references, truth)
        sampled = sample_balanced(
            matches.labels, num_samples=self.samples_per_image, positive_fraction=self.positive_fraction
        )
        scale = self.weight / count_normalizer(sampled.sum())
        wanted = matches.positive.float()
        entropy = F.binary_cross_entropy_with_logits(join_levels(logits)[..., 0].float(), wanted, reduction="none")
        objectness = torch.where(sampled, entropy, 0.0).sum()
        drawn = matches.ignoring(~sampled)
        boxes = box_loss(deltas, references, drawn, beta=self.smooth_l1_beta, stds=self.box_stds)
        return objectness * scale, boxes * scale


class RPNHead(AnchorHead):
    """One objectness logit and one set of deltas for every anchor of a cell."""

    def __init__(self, in_channels: int, *, anchors: AnchorGenerator, channels: int, loss: RPNLoss) -> None:
        super().__init__(anchors=anchors, loss=loss)
        self.convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.objectness_predictor = nn.Conv2d(channels, anchors.num_per_cell, 1)
        self.box_predictor = nn.Conv2d(channels, anchors.num_per_cell * 4, 1)
        init_gaussian(self)

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> Predictions:
        """See DenseHead; logits are (N, R, 1)."""
        shared = [F.relu(self.convolution(x)) for x in features]
        return Predictions(
            references=self.level_anchors(geometry),
            values=[flatten_cells(self.box_predictor(x), 4) for x in shared],
            logits=[flatten_cells(self.objectness_predictor(x), 1) for x in shared] if classify else None,
        )

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"objectness", "box"}."""
        losses = super().losses(predictions, geometry, truth)
        return {"objectness": losses["class"], "box": losses["box"]}
