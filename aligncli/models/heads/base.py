"""The contract of a dense head.

A head looks at every level's map and predicts R = H * W * A boxes, row-major over cells, then over the A
boxes of a cell. Box values are in the head's own encoding, relative to `references`: predefined anchors,
or the cells themselves. Boxes are xyxy pixels of the network input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aligncli.boxes import clip_boxes
from aligncli.matching import GroundTruth
from aligncli.models.detector import Geometry
from aligncli.models.postprocess import Candidates


@dataclass(frozen=True)
class Predictions:
    """What a head says, one tensor a level. Heads that say more (centerness, ...) extend it.

    references: (R, 4), or (N, R, 4) where they differ between images. values: (N, R, 4).
    logits: (N, R, K), or None where classes were not asked for.
    """

    references: list[Tensor]
    values: list[Tensor]
    logits: list[Tensor] | None


class DenseHead(nn.Module):
    """Boxes at every location.

    Subclasses implement `predict`, `decode` and `losses`, and `score_logits` where the score is not the
    sigmoid of the logits alone. `boxes_per_cell` is A.
    """

    boxes_per_cell: int = 1

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> Predictions:
        """From maps (N, C, H, W). With `classify` False (a DPM at test time) only boxes are computed."""
        raise NotImplementedError

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """References and values, (..., 4) each with leading sizes that broadcast, to boxes (..., 4), not clipped.

        Called with rows of several levels, or with some of a level's: a box depends on nothing but its own row.
        """
        raise NotImplementedError

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """Scalar losses by name ("class", "box", ...), weighted and normalised; predictions hold logits.

        The logits may be overwritten (see `focal_loss`): they are not to be read after this.
        """
        raise NotImplementedError

    def score_logits(self, predictions: Predictions) -> list[Tensor]:
        """(N, R, K) a level whose sigmoid is the detection score."""
        assert predictions.logits is not None
        return predictions.logits

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """What the head detects when it is a detector's own, before post-processing."""
        predictions = self.predict(features, geometry, classify=True)
        levels = zip(self.score_logits(predictions), predictions.values, predictions.references, strict=True)
        return [Candidates(*level, decode=self.decode) for level in levels]

    def propose(
        self, features: list[Tensor], geometry: Geometry, truth: GroundTruth | None, *, min_side: float
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What the head gives as a DPM: one refined anchor a cell, and losses (none without `truth`).

        Refined anchors are (N, H * W, 4) a level: finite, inside the image, at least `min_side` pixels
        wide and high, and detached, so that no gradient flows through them.
        """
        predictions = self.predict(features, geometry, classify=truth is not None)
        with torch.no_grad():
            boxes = self.decode(torch.cat(predictions.references, dim=-2), torch.cat(predictions.values, dim=1).float())
            boxes = clip_boxes(boxes, geometry.sizes, min_side=min_side)
        refined = list(boxes.split([level.shape[1] for level in predictions.values], dim=1))
        return refined, {} if truth is None else self.losses(predictions, geometry, truth)
