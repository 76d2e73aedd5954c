"""The multi-box loss (SSD, Liu et al. 2016, section 2.2), its predictors and its scores.

Softmax over K classes and the background, which is the last logit; for each positive the three negatives
that the classifier finds hardest; smooth L1 on the positives' deltas. SSD and both stages of RefineDet use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aligncli.losses import box_loss, loss_normalizer
from aligncli.matching import BACKGROUND, GroundTruth
from aligncli.models.branches import flatten_cells, init_gaussian
from aligncli.models.head_loss import DeltaLoss, join_levels
from aligncli.models.sampling import keep_largest


class MultiBoxPredictors(nn.Module):
    """Two 3x3 convolutions a level, straight on its map: each level has its own (SSD, section 2.1).

    Args:
        in_channels: of each level's map.
        num_classes: K; there are K + 1 logits.
    """

    def __init__(self, in_channels: Sequence[int], *, num_classes: int, num_anchors: int) -> None:
        super().__init__()
        self.num_logits = num_classes + 1
        self.class_predictors = nn.ModuleList(
            nn.Conv2d(channels, num_anchors * self.num_logits, 3, padding=1) for channels in in_channels
        )
        self.box_predictors = nn.ModuleList(
            nn.Conv2d(channels, num_anchors * 4, 3, padding=1) for channels in in_channels
        )
        init_gaussian(self)

    def classify(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (N, H * W * A, K + 1), one tensor a level."""
        pairs = zip(self.class_predictors, features, strict=True)
        return [flatten_cells(predictor(x), self.num_logits) for predictor, x in pairs]

    def regress(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Box deltas (N, H * W * A, 4), one tensor a level."""
        return [flatten_cells(predictor(x), 4) for predictor, x in zip(self.box_predictors, features, strict=True)]


@dataclass(frozen=True, kw_only=True)
class MultiBoxLoss(DeltaLoss):
    """Matching and loss settings of one head. `box_stds` are what SSD's code calls variances."""

    negatives_per_positive: float

    def __call__(
        self,
        logits: Tensor | Sequence[Tensor],
        deltas: Tensor,
        references: Tensor,
        truth: GroundTruth,
        *,
        dropped: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Class loss and box loss, scalars. Without a positive in the batch both are zero.

        Args:
            logits: (N, R, K + 1), or one such tensor a level. deltas: (N, R, 4), relative to references.
            references: (R, 4) or (N, R, 4) xyxy pixels: predefined anchors, or refined ones.
            dropped: (N, R) bool, references that may not be negatives.
        """
        logits = join_levels(logits)
        matches = self.matcher(references, truth)
        if dropped is not None:
            matches = matches.ignoring(dropped & ~matches.positive)
        scale = self.weight / loss_normalizer(matches, "positives")
        entropy = _cross_entropy(logits.float(), matches.labels)
        chosen = matches.positive | self._hardest_negatives(entropy.detach(), matches.labels)
        classes = torch.where(chosen, entropy, 0.0).sum()
        boxes = box_loss(deltas, references, matches, beta=self.smooth_l1_beta, stds=self.box_stds)
        return classes * scale, boxes * scale

    def _hardest_negatives(self, entropy: Tensor, labels: Tensor) -> Tensor:
        """(N, R) bool. An image without positives has none."""
        counts = (labels >= 0).sum(dim=1) * self.negatives_per_positive
        return keep_largest(entropy, labels == BACKGROUND, counts)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, R) losses of logits (N, R, K + 1); whatever is not positive counts as background.

    Unlike `F.cross_entropy`, which keeps every row's softmax for a backward that needs few of them, this
    keeps nothing of the logits' size beside the logits.
    """
    background = logits.shape[-1] - 1
    own = torch.where(labels >= 0, labels, background)
    return logits.logsumexp(dim=-1) - logits.gather(-1, own[..., None])[..., 0]


def softmax_score_logits(logits: Tensor) -> Tensor:
    """Softmax scores without the background, as the logits whose sigmoid they are: (..., K + 1) to (..., K).

    That logit is x_k - logsumexp(the others). The others are the whole minus class k, which cancels badly
    for the largest logit alone: there they are summed anew.
    """
    logits = logits.float()
    log_scores = logits.log_softmax(dim=-1)
    found = log_scores - torch.log1p(-log_scores.exp())
    best, index = logits.max(dim=-1, keepdim=True)
    others = logits.scatter(-1, index, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return found.scatter(-1, index, best - others)[..., :-1]
