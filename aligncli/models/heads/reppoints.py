"""RepPoints' detector, RPDet (Yang et al. 2019): an object is nine points, and a box is what they span.

The first points come from the features alone; a deformable convolution reads the features at them, and says
class and how the points move. The first points learn the object whose centre is nearest, the refined ones by
the IoU of the first ones' box. Points are (dy, dx) from their cell's centre, in cells, as offsets.py has them.
Values are pseudo boxes: xyxy from the cell's centre, in strides.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.losses import count_normalizer, focal_loss, loss_normalizer
from aligncli.matching import GroundTruth, Matcher
from aligncli.models.branches import conv_stack, flatten_cells, init_head
from aligncli.models.detector import Geometry
from aligncli.models.heads.base import DenseHead, Predictions
from aligncli.models.heads.cells import cell_references, cell_strides, object_levels
from aligncli.ops import DeformableConv2d

KERNEL_SIZE = 3
NUM_POINTS = KERNEL_SIZE**2


@dataclass(frozen=True)
class RepPointsPredictions(Predictions):
    """values: boxes of the refined points. initial (N, R, 4): boxes of the first points, in the same encoding."""

    initial: list[Tensor]


class RepPointsHead(DenseHead):
    """Two stages of points, the second with classes.

    Args:
        num_convs, tower_channels, norm: of the class tower and of the tower of points.
        pseudo_box: "moment", mean and standard deviation of the points, or "minmax", their rectangle.
        object_scale: side of the smallest objects of a level in strides, and the unit that boxes are learned in.
        gradient_multiplier: of the gradient that the first points get as the taps of deformable convolutions.
        moment_multiplier: of the gradient of the moment's two learned scales.
        matcher: of the first boxes.
        backend: of the deformable convolutions, see aligncli.ops.choose_backend.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int,
        num_convs: int,
        tower_channels: int,
        norm: str,
        pseudo_box: Literal["moment", "minmax"],
        object_scale: float,
        gradient_multiplier: float,
        moment_multiplier: float,
        matcher: Matcher,
        initial_weight: float,
        refined_weight: float,
        focal_alpha: float,
        focal_gamma: float,
        smooth_l1_beta: float,
        backend: str,
    ) -> None:
        super().__init__()
        width = tower_channels if num_convs else in_channels
        self.class_tower = conv_stack(in_channels, tower_channels, num_convs=num_convs, kernel_size=3, norm=norm)
        self.point_tower = conv_stack(in_channels, tower_channels, num_convs=num_convs, kernel_size=3, norm=norm)
        self.initial_convolution = nn.Conv2d(width, width, 3, padding=1)
        self.initial_points = nn.Conv2d(width, 2 * NUM_POINTS, 1)
        self.refined_convolution = DeformableConv2d(width, width, KERNEL_SIZE, backend=backend)
        self.refined_points = nn.Conv2d(width, 2 * NUM_POINTS, 1)
        self.class_convolution = DeformableConv2d(width, width, KERNEL_SIZE, backend=backend)
        self.class_predictor = nn.Conv2d(width, num_classes, 1)
        # log of half a box's (width, height) over its points' standard deviations
        self.moment_scale = nn.Parameter(torch.zeros(2)) if pseudo_box == "moment" else None
        self.num_classes = num_classes
        self.object_scale = object_scale
        self.gradient_multiplier = gradient_multiplier
        self.moment_multiplier = moment_multiplier
        self.matcher = matcher
        self.initial_weight = initial_weight
        self.refined_weight = refined_weight
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.smooth_l1_beta = smooth_l1_beta
        init_head(self, self.class_predictor)

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> RepPointsPredictions:
        """See DenseHead and RepPointsPredictions."""
        point_maps = [self.point_tower(x) for x in features]
        points = [self.initial_points(F.relu(self.initial_convolution(x))).float() for x in point_maps]
        offsets = [_scale_gradient(x, self.gradient_multiplier) - _taps(x) for x in points]
        moves = [self.refined_points(F.relu(x)) for x in self.refined_convolution(point_maps, offsets)]
        refined = [first.detach() + move for first, move in zip(points, moves, strict=True)]
        logits = None
        if classify:
            at_points = self.class_convolution([self.class_tower(x) for x in features], offsets)
            logits = [flatten_cells(self.class_predictor(F.relu(x)), self.num_classes) for x in at_points]
        return RepPointsPredictions(
            references=cell_references(geometry.shapes, geometry.strides, device=geometry.sizes.device),
            values=[self.box_of_points(x) for x in refined],
            logits=logits,
            initial=[self.box_of_points(x) for x in points],
        )

    def box_of_points(self, points: Tensor) -> Tensor:
        """Points (N, 2 * 9, H, W), (dy, dx) each, to boxes (N, H * W, 4), xyxy from the cells' centres in strides."""
        xy = flatten_cells(points, 2 * NUM_POINTS).unflatten(2, (NUM_POINTS, 2)).flip(-1)
        if self.moment_scale is None:
            return torch.cat((xy.amin(dim=2), xy.amax(dim=2)), dim=-1)
        center = xy.mean(dim=2)
        half_sides = xy.std(dim=2) * _scale_gradient(self.moment_scale, self.moment_multiplier).exp()
        return torch.cat((center - half_sides, center + half_sides), dim=-1)

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Values (..., 4) that turn cells (..., 4) into boxes (..., 4)."""
        return (boxes - _centers_twice(references)) / cell_strides(references)

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Cells and pseudo boxes to boxes."""
        return _centers_twice(references) + values * cell_strides(references)

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"initial_box", "class", "box"}."""
        assert isinstance(predictions, RepPointsPredictions)
        assert predictions.logits is not None
        cells = torch.cat(predictions.references)
        initial = torch.cat(predictions.initial, dim=1)
        matches = self.matcher(self.decode(cells, initial.detach()), truth)
        normalizer = loss_normalizer(matches, "positives")
        classes = focal_loss(predictions.logits, matches.labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
        refined = self._box_loss(torch.cat(predictions.values, dim=1), cells, matches.boxes, matches.positive)
        return {
            "initial_box": self._initial_loss(initial, cells, geometry, truth) * self.initial_weight,
            "class": classes / normalizer,
            "box": refined * self.refined_weight / normalizer,
        }

    @torch.no_grad()
    def center_cells(self, geometry: Geometry, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """The cell that learns each object at first: index (N, G) among all R, and chosen (N, G) bool.

        It is the one nearest to the object's centre, in units of the object's sides, on the object's level; where
        several objects want the same cell, the nearest one gets it (section 3.2). The units do not matter for
        the nearest cell of an object: along each axis it is the cell that holds the centre.
        """
        boxes, device = truth.boxes, truth.boxes.device
        counts = [height * width for height, width in geometry.shapes]
        first = torch.tensor([0, *accumulate(counts)], device=device)  # cells before a level, and in all
        level = object_levels(boxes, [self.object_scale * stride for stride in geometry.strides])  # (N, G)
        stride = torch.tensor(geometry.strides, device=device)[level][..., None]
        size = torch.tensor(geometry.shapes, device=device)[level].flip(-1)  # (N, G, 2): columns, rows
        center = 0.5 * (boxes[..., :2] + boxes[..., 2:])
        cell = (center / stride).floor().long().clamp(min=0).minimum(size - 1)  # (N, G, 2): column, row
        index = first[level] + cell[..., 1] * size[..., 0] + cell[..., 0]
        away = ((cell + 0.5) * stride - center) / (boxes[..., 2:] - boxes[..., :2])
        distance = torch.where(truth.objects, away.square().sum(dim=-1), torch.inf)
        nearest = distance.new_full((len(boxes), sum(counts)), torch.inf)
        nearest.scatter_reduce_(1, index, distance, "amin")
        return index, truth.objects & (distance <= nearest.gather(1, index))

    def _initial_loss(self, initial: Tensor, cells: Tensor, geometry: Geometry, truth: GroundTruth) -> Tensor:
        index, chosen = self.center_cells(geometry, truth)
        values = initial.gather(1, index[..., None].expand(-1, -1, 4))
        return self._box_loss(values, cells[index], truth.boxes, chosen) / count_normalizer(chosen.sum())

    def _box_loss(self, values: Tensor, cells: Tensor, boxes: Tensor, positive: Tensor) -> Tensor:
        """Sum over positives (N, R) of smooth L1 between values and encoded boxes, both (N, R, 4)."""
        wanted = self.encode(cells, boxes) / self.object_scale
        found = values.float() / self.object_scale
        distance = F.smooth_l1_loss(found, wanted, beta=self.smooth_l1_beta, reduction="none").sum(dim=-1)
        return torch.where(positive, distance, 0.0).sum()


def _scale_gradient(x: Tensor, multiplier: float) -> Tensor:
    """x, whose gradient is multiplied on the way back."""
    return x.detach() + multiplier * (x - x.detach())


def _taps(points: Tensor) -> Tensor:
    """Where a convolution's taps lie without offsets, (1, 2 * 9, 1, 1) as points."""
    steps = torch.arange(KERNEL_SIZE, device=points.device, dtype=points.dtype) - KERNEL_SIZE // 2
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).view(1, -1, 1, 1)


def _centers_twice(cells: Tensor) -> Tensor:
    """(..., 4): the centre as both corners."""
    centers = 0.5 * (cells[..., :2] + cells[..., 2:])
    return torch.cat((centers, centers), dim=-1)
