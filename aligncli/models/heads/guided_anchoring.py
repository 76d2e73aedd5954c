"""RetinaNet with Guided Anchoring (Wang et al. 2019): one anchor a cell, of a shape that the cell predicts.

The location branch says where objects have their middle, the shape branch how wide and high the anchor is;
its shape moves the taps of a deformable convolution (feature adaption), and on what that reads, RetinaNet's
predictors say class and box. At test time cells with little hope of a middle are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.anchors import AnchorGenerator
from aligncli.boxes import MAX_LOG_SCALE
from aligncli.errors import RecipeError
from aligncli.losses import focal_loss, loss_normalizer
from aligncli.matching import GroundTruth, Matcher, Matches
from aligncli.models.branches import Branches, OffsetPredictor, flatten_cells, init_gaussian, init_prior
from aligncli.models.detector import Geometry
from aligncli.models.head_loss import HeadLoss
from aligncli.models.heads.base import DenseHead, Predictions
from aligncli.models.heads.cells import (
    Cells,
    assign_cells,
    cell_references,
    cell_strides,
    in_core,
    object_levels,
)
from aligncli.models.postprocess import logit
from aligncli.ops import DeformableConv2d

KERNEL_SIZE = 3


@dataclass(frozen=True)
class GuidedPredictions(Predictions):
    """references: the guided anchors, (N, R, 4), detached. values: deltas relative to them.

    shapes (N, R, 2): dw, dh. locations (N, R, 1): logits, or None where classes were not asked for.
    """

    shapes: list[Tensor]
    locations: list[Tensor] | None


class FeatureAdaption(nn.Module):
    """A deformable convolution whose offsets are a 1x1 convolution of the predicted shape (section 3.4)."""

    def __init__(self, channels: int, *, backend: str) -> None:
        super().__init__()
        self.offsets = OffsetPredictor(2, 2 * KERNEL_SIZE**2, std=0.1)  # as in the authors' code
        self.convolution = DeformableConv2d(channels, channels, KERNEL_SIZE, backend=backend)

    def forward(self, features: Sequence[Tensor], shapes: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C, H, W) and shapes (N, 2, H, W), which get no gradient from here, to maps (N, C, H, W)."""
        offsets = [self.offsets(level.detach()) for level in shapes]
        return [F.relu(x) for x in self.convolution(features, offsets)]


class GuidedAnchoringHead(DenseHead):
    """Location, shape and feature adaption between RetinaNet's towers and its predictors.

    Args:
        branches: with one anchor a cell. channels: of their towers' outputs.
        object_scale: sigma, side of the objects that a level is made for in strides; anchors are
            sigma * stride * exp(dw) wide.
        center_region, ignored_region: sigma_1 and sigma_2, shares of an object's sides.
        sampled_shapes: whose best IoU at a cell decides which object its shape learns, by `shape_matcher`.
        loss: of classes and boxes, on the guided anchors.
        backend: of the deformable convolutions, see aligncli.ops.choose_backend.
    """

    def __init__(
        self,
        *,
        branches: Branches,
        channels: int,
        object_scale: float,
        center_region: float,
        ignored_region: float,
        location_threshold: float,
        sampled_shapes: AnchorGenerator,
        shape_matcher: Matcher,
        shape_beta: float,
        location_weight: float,
        shape_weight: float,
        loss: HeadLoss,
        backend: str,
    ) -> None:
        super().__init__()
        if center_region > ignored_region:
            raise RecipeError(
                f"center_region is {center_region}, above ignored_region {ignored_region}: "
                "cells between the two are ignored, so the first must be the smaller one"
            )
        self.branches = branches
        self.class_adaption = FeatureAdaption(channels, backend=backend)
        self.box_adaption = FeatureAdaption(channels, backend=backend)
        self.location_predictor = nn.Conv2d(channels, 1, 1)
        self.shape_predictor = nn.Conv2d(channels, 2, 1)
        self.object_scale = object_scale
        self.center_region = center_region
        self.ignored_region = ignored_region
        self.location_logit = logit(location_threshold)
        self.sampled_shapes = sampled_shapes
        self.shape_matcher = shape_matcher
        self.shape_beta = shape_beta
        self.location_weight = location_weight
        self.shape_weight = shape_weight
        self.loss = loss
        init_gaussian(self.shape_predictor)
        init_gaussian(self.location_predictor)
        init_prior(self.location_predictor)

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> GuidedPredictions:
        """See DenseHead and GuidedPredictions."""
        cells = cell_references(geometry.shapes, geometry.strides, device=geometry.sizes.device)
        branches = self.branches
        box_maps = [branches.box_tower(x) for x in features]
        shape_maps = [self.shape_predictor(x) for x in box_maps]
        shapes = [flatten_cells(x, 2) for x in shape_maps]
        deltas = [flatten_cells(branches.box_predictor(x), 4) for x in self.box_adaption(box_maps, shape_maps)]
        logits = locations = None
        if classify:
            class_maps = [branches.class_tower(x) for x in features]
            locations = [flatten_cells(self.location_predictor(x), 1) for x in class_maps]
            adapted = self.class_adaption(class_maps, shape_maps)
            logits = [flatten_cells(branches.class_predictor(x), branches.num_classes) for x in adapted]
        return GuidedPredictions(
            references=[self.guided_anchors(*level) for level in zip(cells, shapes, strict=True)],
            values=deltas,
            logits=logits,
            shapes=shapes,
            locations=locations,
        )

    def guided_anchors(self, cells: Tensor, shapes: Tensor) -> Tensor:
        """Cells (R, 4) and shapes (N, R, 2) to anchors (N, R, 4) by equation 2: detached, finite, sides above zero."""
        centers = 0.5 * (cells[:, :2] + cells[:, 2:])
        scales = shapes.detach().float().clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
        half_sides = 0.5 * self.object_scale * cell_strides(cells) * scales
        return torch.cat((centers - half_sides, centers + half_sides), dim=-1)

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Guided anchors and deltas to boxes."""
        return self.loss.decode(references, values)

    def score_logits(self, predictions: Predictions) -> list[Tensor]:
        """The class logits where the location branch sees a chance of an object, minus infinity elsewhere."""
        assert isinstance(predictions, GuidedPredictions)
        assert predictions.logits is not None
        assert predictions.locations is not None
        return [
            logits.masked_fill(locations < self.location_logit, -torch.inf)
            for logits, locations in zip(predictions.logits, predictions.locations, strict=True)
        ]

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"location", "shape", "class", "box"}."""
        assert isinstance(predictions, GuidedPredictions)
        assert predictions.logits is not None
        assert predictions.locations is not None
        classes, boxes = self.loss(
            predictions.logits,
            torch.cat(predictions.values, dim=1),
            torch.cat(predictions.references, dim=1),
            truth,
        )
        cells = Cells.of(cell_references(geometry.shapes, geometry.strides, device=geometry.sizes.device))
        return {
            "location": self._location_loss(predictions.locations, cells, geometry, truth),
            "shape": self._shape_loss(predictions.shapes, cells, geometry, truth),
            "class": classes,
            "box": boxes,
        }

    def location_targets(self, cells: Cells, strides: Sequence[int], truth: GroundTruth) -> Matches:
        """Where objects have their middle: labels (N, R) of the class in it, IGNORED around it and on the next levels.

        Cells in the middle share of an object are positive on the object's own level. Those in a wider share are
        ignored on that level and on the two beside it, and so is what lies in a crowd region (section 3.2).
        """
        levels = object_levels(truth.boxes, [self.object_scale * stride * 0.5**0.5 for stride in strides])[:, None]

        def center(cells: Cells, boxes: Tensor) -> Tensor:
            return in_core(cells, boxes, shrink=self.center_region) & (cells.levels[:, None] == levels)

        def surround(cells: Cells, boxes: Tensor) -> Tensor:
            beside = (cells.levels[:, None] - levels).abs() <= 1
            return in_core(cells, boxes, shrink=self.ignored_region) & beside

        return assign_cells(cells, truth, positive=center, ignored=surround)

    def _location_loss(self, locations: list[Tensor], cells: Cells, geometry: Geometry, truth: GroundTruth) -> Tensor:
        targets = self.location_targets(cells, geometry.strides, truth)
        labels = targets.labels.clamp(max=0)  # one class: object
        loss = focal_loss(locations, labels, alpha=self.loss.focal_alpha, gamma=self.loss.focal_gamma)
        return loss * self.location_weight / loss_normalizer(targets, self.loss.normalizer)

    def _shape_loss(self, shapes: list[Tensor], cells: Cells, geometry: Geometry, truth: GroundTruth) -> Tensor:
        """Bounded IoU loss (Tychsen-Smith and Petersson 2018) of width and height, equation 5.

        1 - min(w / w*, w* / w) is 1 - exp(-|log w - log w*|), which no prediction makes overflow.
        """
        sampled = self.sampled_shapes.for_levels(geometry.shapes, geometry.strides, device=cells.boxes.device)
        matches = self.shape_matcher(torch.cat(sampled), truth, num_shapes=self.sampled_shapes.num_per_cell)
        sides = matches.boxes[..., 2:] - matches.boxes[..., :2]
        wanted = (sides / (self.object_scale * cell_strides(cells.boxes))).log()
        distance = 1 - (torch.cat(shapes, dim=1).float() - wanted).abs().neg().exp()
        loss = F.smooth_l1_loss(distance, torch.zeros_like(distance), beta=self.shape_beta, reduction="none")
        total = torch.where(matches.positive, loss.sum(dim=-1), 0.0).sum()
        return total * self.shape_weight / loss_normalizer(matches, self.loss.normalizer)
