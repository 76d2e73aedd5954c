"""DenseBox (Huang et al. 2015): a score map a class and ltrb distances, both learnt with L2 losses.

A filled circle in the middle of an object is positive, cells near it form an ignored gray zone, and as many
negatives as positives are sampled, half of them among the hardest (section 3.3). On a pyramid instead of the
paper's single map: each object on the level made for its size. Values are distances over that level's size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.boxes import box_areas
from aligncli.losses import loss_normalizer
from aligncli.matching import BACKGROUND, IGNORED, GroundTruth
from aligncli.models.branches import Branches
from aligncli.models.detector import Geometry
from aligncli.models.heads.base import DenseHead, Predictions
from aligncli.models.heads.cells import (
    Cells,
    Region,
    assign_cells,
    cell_references,
    cell_strides,
    center_offsets,
    decode_distances,
    encode_distances,
    in_core,
)
from aligncli.models.sampling import keep_largest, sample_rows

FRESH_DISTANCE = 0.5  # a fresh head predicts the square that its level is made for
SCORE_MARGIN = 1e-4  # scores are regressed, so they can leave 0..1: they are cut this far inside


class DenseBoxHead(DenseHead):
    """RetinaNet's branches with one box a cell; "logits" are the scores themselves, 0 for nothing, 1 for an object.

    Args:
        object_size: side of the objects that a level is made for, in strides; distances are divided by it.
        radius: of the positive circle, as a share of the object's sides; an ellipse where they differ.
        gray_zone: cells this near to a positive cell are ignored.
        hard_share: share of all cells that counts as hard, by their loss; half of the negatives come from there.
        box_weight: lambda_loc.
    """

    def __init__(
        self,
        *,
        branches: Branches,
        object_size: float,
        radius: float,
        gray_zone: int,
        hard_share: float,
        box_weight: float,
    ) -> None:
        super().__init__()
        self.branches = branches
        self.object_size = object_size
        self.radius = radius
        self.gray_zone = gray_zone
        self.hard_share = hard_share
        self.box_weight = box_weight
        for predictor, bias in ((branches.class_predictor, 0.0), (branches.box_predictor, FRESH_DISTANCE)):
            assert isinstance(predictor, nn.Conv2d)
            assert predictor.bias is not None
            nn.init.constant_(predictor.bias, bias)  # "nothing here" is a score of 0, not a logit

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> Predictions:
        """See DenseHead; values are distances over the level's object size."""
        return Predictions(
            references=cell_references(geometry.shapes, geometry.strides, device=geometry.sizes.device),
            values=self.branches.regress(features),
            logits=self.branches.classify(features) if classify else None,
        )

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Values (..., 4) that turn cells (..., 4) into boxes (..., 4)."""
        return encode_distances(references, boxes) / (self.object_size * cell_strides(references))

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Cells and values to boxes."""
        return decode_distances(references, values * (self.object_size * cell_strides(references)))

    def score_logits(self, predictions: Predictions) -> list[Tensor]:
        """Logits of the scores, which are regressed as they are."""
        assert predictions.logits is not None
        return [scores.float().logit(eps=SCORE_MARGIN) for scores in predictions.logits]

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"class", "box"}: squared errors over positives and sampled negatives, and over positives."""
        assert predictions.logits is not None
        cells = Cells.of(predictions.references)
        matches = assign_cells(cells, truth, positive=self._circle(geometry, truth))
        labels = mark_gray_zone(matches.labels, geometry.shapes, self.gray_zone)
        scores = torch.cat(predictions.logits, dim=1).float()
        wanted = F.one_hot(labels.clamp(min=0), scores.shape[-1]) * matches.positive[..., None]
        errors = (scores - wanted).square().sum(dim=-1)  # (N, R)
        chosen = matches.positive | sample_negatives(errors.detach(), labels, hard_share=self.hard_share)
        values = torch.cat(predictions.values, dim=1).float()
        distance = (values - self.encode(cells.boxes, matches.boxes)).square().sum(dim=-1)
        boxes = torch.where(matches.positive, distance, 0.0).sum()
        num_positives = loss_normalizer(matches, "positives")
        return {
            "class": torch.where(chosen, errors, 0.0).sum() / num_positives,
            "box": self.box_weight * boxes / num_positives,
        }

    def _circle(self, geometry: Geometry, truth: GroundTruth) -> Region:
        """Cells in the circle, and the one that holds the object's centre, on the level nearest to its size."""
        sizes = self.object_size * torch.tensor(geometry.strides, device=truth.boxes.device)  # (L,)
        steps = box_areas(truth.boxes).sqrt()[..., None].log() - sizes.log()
        levels = steps.abs().argmin(dim=-1)[:, None]  # (N, 1, G)

        def region(cells: Cells, boxes: Tensor) -> Tensor:
            shares = center_offsets(cells, boxes) / (boxes[..., 2:] - boxes[..., :2])[:, None]
            inside = shares.square().sum(dim=-1) <= self.radius**2
            return (cells.levels[:, None] == levels) & (inside | in_core(cells, boxes, shrink=0.0))

        return region


def mark_gray_zone(labels: Tensor, shapes: tuple[tuple[int, int], ...], radius: int) -> Tensor:
    """Labels (N, R) of maps with `shapes` (height, width), with BACKGROUND cells near positive ones IGNORED.

    Near is at most `radius` cells from centre to centre, on the same map.
    """
    steps = torch.arange(-radius, radius + 1, device=labels.device)
    disc = (steps[:, None] ** 2 + steps**2 <= radius**2).float()[None, None]
    near = []
    for level, (height, width) in zip(labels.split([h * w for h, w in shapes], dim=1), shapes, strict=True):
        positive = (level >= 0).float().view(-1, 1, height, width)
        near.append(F.conv2d(positive, disc, padding=radius).flatten(1) > 0.5)
    return torch.where((labels == BACKGROUND) & torch.cat(near, dim=1), IGNORED, labels)


def sample_negatives(errors: Tensor, labels: Tensor, *, hard_share: float) -> Tensor:
    """(N, R) bool: as many BACKGROUND cells as there are positives in the batch, at least one.

    Half of them, rounded up, are drawn from the hard ones, which are `hard_share` of the number of cells and have
    the largest errors (N, R). The others are drawn from the rest. Counts stay on the device. With several processes
    "the batch" is a process's own part of it.
    """
    negative = (labels == BACKGROUND).view(1, -1)
    num_hard_cells = max(1, round(hard_share * labels.numel()))
    hard = keep_largest(errors.view(1, -1), negative, num_hard_cells)
    num_wanted = (labels >= 0).sum().clamp(min=1).view(1)
    num_hard = (num_wanted + 1) // 2
    chosen = sample_rows(hard, num_hard) | sample_rows(negative & ~hard, num_wanted - num_hard)
    return chosen.view_as(labels)
