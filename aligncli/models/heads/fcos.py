"""FCOS (Tian et al. 2019): every cell inside an object learns its distances to the object's four sides.

An object belongs to the cells whose largest distance suits their level; the smallest object wins. Centerness,
predicted beside the classes, tells central cells from marginal ones and multiplies the score at test time.
Values are logarithms of ltrb distances in strides, already scaled by the level's learnable factor.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.boxes import MAX_LOG_SCALE
from aligncli.losses import count_normalizer, focal_loss, iou_loss, loss_normalizer
from aligncli.matching import GroundTruth
from aligncli.models.branches import Branches, flatten_cells
from aligncli.models.detector import Geometry
from aligncli.models.heads.base import DenseHead, Predictions
from aligncli.models.heads.cells import (
    Cells,
    Region,
    assign_cells,
    cell_references,
    cell_strides,
    decode_distances,
    encode_distances,
    pairwise_distances,
)

MIN_CENTERNESS = 1e-6  # least sum of weights to divide by


@dataclass(frozen=True)
class FCOSPredictions(Predictions):
    """centerness: logits (N, R) a level; None where classes were not asked for."""

    centerness: list[Tensor] | None


class FCOSHead(DenseHead):
    """Classes and centerness on one tower, distances on the other.

    Args:
        tower_channels: of the class tower. num_levels: of the pyramid; each has a learnable scale.
        reach: a level's largest distance in strides; the next finer level's is where its smallest begins.
            The finest level has no smallest distance, the coarsest no largest.
    """

    def __init__(
        self,
        *,
        branches: Branches,
        tower_channels: int,
        num_levels: int,
        reach: float,
        focal_alpha: float,
        focal_gamma: float,
    ) -> None:
        super().__init__()
        self.branches = branches
        self.centerness_predictor = nn.Conv2d(tower_channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(num_levels))
        self.reach = reach
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        nn.init.normal_(self.centerness_predictor.weight, std=0.01)
        assert self.centerness_predictor.bias is not None
        nn.init.zeros_(self.centerness_predictor.bias)

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> FCOSPredictions:
        """See DenseHead; values are log distances."""
        distances = self.branches.regress(features)
        logits = centerness = None
        if classify:
            towers = [self.branches.class_tower(x) for x in features]
            logits = [flatten_cells(self.branches.class_predictor(x), self.branches.num_classes) for x in towers]
            centerness = [flatten_cells(self.centerness_predictor(x), 1)[..., 0] for x in towers]
        return FCOSPredictions(
            references=cell_references(geometry.shapes, geometry.strides, device=geometry.sizes.device),
            values=[scale * x for scale, x in zip(self.scales, distances, strict=True)],
            logits=logits,
            centerness=centerness,
        )

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Cells and log distances to boxes."""
        return decode_distances(references, values.clamp(max=MAX_LOG_SCALE).exp() * cell_strides(references))

    def score_logits(self, predictions: Predictions) -> list[Tensor]:
        """Of the class probability times the centerness."""
        assert isinstance(predictions, FCOSPredictions)
        assert predictions.logits is not None
        assert predictions.centerness is not None
        return [
            logit_of_product(logits.float(), centerness.float()[..., None])
            for logits, centerness in zip(predictions.logits, predictions.centerness, strict=True)
        ]

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"class", "box", "centerness"}: focal, IoU loss weighted by the wanted centerness, cross-entropy.

        The last is counted from its least value, the entropy of the wanted centerness: a perfect head has no loss.
        """
        assert isinstance(predictions, FCOSPredictions)
        assert predictions.logits is not None
        assert predictions.centerness is not None
        cells = Cells.of(predictions.references)
        matches = assign_cells(cells, truth, positive=self._region(len(geometry.strides)))
        num_positives = loss_normalizer(matches, "positives")
        wanted = torch.where(matches.positive, wanted_centerness(cells.boxes, matches.boxes), 0.0)  # (N, R)
        classes = focal_loss(predictions.logits, matches.labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
        boxes = iou_loss(self.decode(cells.boxes, torch.cat(predictions.values, dim=1).float()), matches.boxes)
        centers = F.binary_cross_entropy_with_logits(
            torch.cat(predictions.centerness, dim=1).float(), wanted, reduction="none"
        )
        centers = centers - torch.special.entr(wanted) - torch.special.entr(1 - wanted)
        return {
            "class": classes / num_positives,
            "box": (boxes * wanted).sum() / count_normalizer(wanted.sum(), least=MIN_CENTERNESS),
            "centerness": torch.where(matches.positive, centers, 0.0).sum() / num_positives,
        }

    def _region(self, num_levels: int) -> Region:
        """Inside the box, with the largest of the four distances in the level's range (section 3.2)."""

        def region(cells: Cells, boxes: Tensor) -> Tensor:
            distances = pairwise_distances(cells, boxes)
            largest = distances.amax(dim=-1)  # (N, R, G)
            limit = self.reach * cells.strides[:, None]
            suits = (largest <= limit) | (cells.levels == num_levels - 1)[:, None]
            suits &= (largest >= 0.5 * limit) | (cells.levels == 0)[:, None]  # half: the finer level's limit
            return suits & (distances > 0).all(dim=-1)

        return region


def wanted_centerness(cells: Tensor, boxes: Tensor) -> Tensor:
    """Equation 3, (...) in 0..1 of cells and boxes (..., 4): 1 at the box's centre, 0 on its sides and outside."""
    left, top, right, bottom = encode_distances(cells, boxes).clamp(min=0.0).unbind(dim=-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


def logit_of_product(first: Tensor, second: Tensor) -> Tensor:
    """logit(sigmoid(first) * sigmoid(second)): the odds against are e^-a + e^-b + e^-(a+b)."""
    return -torch.logaddexp(torch.logaddexp(-first, -second), -first - second)
