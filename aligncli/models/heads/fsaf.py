"""FSAF (Zhu et al. 2019): each object picks, at every step, the pyramid level that already sees it best.

Cells in the middle of an object (its effective region) predict class and ltrb distances. The level where their
focal + IoU loss is least learns the object (section 3.3). As a detector it is RetinaNet with these predictors
beside its own, on the same towers; alone it is one box a cell. Values are distances over 4 strides, before ReLU.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.errors import RecipeError
from aligncli.losses import focal_loss, iou_loss, loss_normalizer, pairwise_focal_loss
from aligncli.matching import GroundTruth
from aligncli.models.branches import Branches, flatten_cells
from aligncli.models.detector import Geometry
from aligncli.models.heads.base import DenseHead, Predictions
from aligncli.models.heads.cells import Cells, assign_cells, cell_references, cell_strides, decode_distances, in_core
from aligncli.models.heads.retinanet import RetinaNetHead
from aligncli.models.postprocess import Candidates

BOX_BIAS = 0.1  # the paper's b: a fresh head predicts small boxes, not empty ones, on which the IoU loss is flat


@dataclass(frozen=True)
class FSAFPredictions(Predictions):
    """The anchor-free branch's, and those of the anchor-based one where there is one."""

    anchor_based: Predictions | None


class FSAFHead(DenseHead):
    """Anchor-free branch with online feature selection, optionally beside an anchor-based one.

    Args:
        branches: towers and anchor-free predictors.
        anchor_based: RetinaNet's head without towers: it looks at those of `branches`.
        distance_unit: S, in strides. effective, ignoring: eps_e and eps_i, shares of the object's sides.
        weight: lambda, of the anchor-free losses.
    """

    def __init__(
        self,
        *,
        branches: Branches,
        anchor_based: RetinaNetHead | None,
        distance_unit: float,
        effective: float,
        ignoring: float,
        focal_alpha: float,
        focal_gamma: float,
        weight: float,
    ) -> None:
        super().__init__()
        if effective > ignoring:
            raise RecipeError(f"effective is {effective}, above ignoring {ignoring}: the ignored ring lies around it")
        self.branches = branches
        self.anchor_based = anchor_based
        self.distance_unit = distance_unit
        self.effective = effective
        self.ignoring = ignoring
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.weight = weight
        assert isinstance(branches.box_predictor, nn.Conv2d)
        assert branches.box_predictor.bias is not None
        nn.init.constant_(branches.box_predictor.bias, BOX_BIAS)

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> FSAFPredictions:
        """See DenseHead; a DPM at test time (`classify` False) has no use for the anchor-based branch."""
        device = geometry.sizes.device
        box_towers = [self.branches.box_tower(x) for x in features]
        logits = anchor_based = None
        if classify:
            class_towers = [self.branches.class_tower(x) for x in features]
            logits = [flatten_cells(self.branches.class_predictor(x), self.branches.num_classes) for x in class_towers]
            if self.anchor_based is not None:
                anchor_based = Predictions(
                    references=self.anchor_based.anchors.for_levels(geometry.shapes, geometry.strides, device=device),
                    values=self.anchor_based.branches.regress(box_towers),
                    logits=self.anchor_based.branches.classify(class_towers),
                )
        return FSAFPredictions(
            references=cell_references(geometry.shapes, geometry.strides, device=device),
            values=[flatten_cells(self.branches.box_predictor(x), 4) for x in box_towers],
            logits=logits,
            anchor_based=anchor_based,
        )

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Cells and values to boxes."""
        return decode_distances(references, F.relu(values) * (self.distance_unit * cell_strides(references)))

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """Those of both branches; NMS merges them (section 3.4)."""
        free = self.predict(features, geometry, classify=True)
        parts: list[tuple[DenseHead, Predictions]] = [(self, free)]
        if self.anchor_based is not None and free.anchor_based is not None:
            parts.append((self.anchor_based, free.anchor_based))
        return [
            Candidates(*level, decode=head.decode)
            for head, part in parts
            for level in zip(head.score_logits(part), part.values, part.references, strict=True)
        ]

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"class", "box"}: focal and IoU loss over effective regions; "anchor_..." of the anchor-based branch."""
        assert isinstance(predictions, FSAFPredictions)
        assert predictions.logits is not None
        levels = self.select_levels(predictions, truth)[:, None]  # (N, 1, G)

        def effective(cells: Cells, boxes: Tensor) -> Tensor:
            return (cells.levels[:, None] == levels) & in_core(cells, boxes, shrink=self.effective)

        def ignoring(cells: Cells, boxes: Tensor) -> Tensor:  # on the adjacent levels too
            near = (cells.levels[:, None] - levels).abs() <= 1
            return near & in_core(cells, boxes, shrink=self.ignoring)

        cells = Cells.of(predictions.references)
        matches = assign_cells(cells, truth, positive=effective, ignored=ignoring)
        scale = self.weight / loss_normalizer(matches, "positives")
        classes = focal_loss(predictions.logits, matches.labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
        overlap = iou_loss(self.decode(cells.boxes, torch.cat(predictions.values, dim=1).float()), matches.boxes)
        boxes = torch.where(matches.positive, overlap, 0.0).sum()
        losses = {"class": classes * scale, "box": boxes * scale}
        if self.anchor_based is not None and predictions.anchor_based is not None:
            based = self.anchor_based.losses(predictions.anchor_based, geometry, truth)
            losses |= {f"anchor_{name}": loss for name, loss in based.items()}
        return losses

    @torch.no_grad()
    def select_levels(self, predictions: Predictions, truth: GroundTruth) -> Tensor:
        """(N, G): the level where each object's focal + IoU loss, averaged over its effective region, is least."""
        assert predictions.logits is not None
        means = []
        for references, logits, values in zip(
            predictions.references, predictions.logits, predictions.values, strict=True
        ):
            total = count = torch.zeros_like(truth.labels, dtype=torch.float32)  # (N, G)
            slices = Cells.of([references]).split(truth.labels.numel())
            sizes = [len(part.boxes) for part in slices]
            for cells, own_logits, own_values in zip(
                slices, logits.split(sizes, dim=1), values.split(sizes, dim=1), strict=True
            ):
                region = in_core(cells, truth.boxes, shrink=self.effective)  # (N, r, G)
                loss = pairwise_focal_loss(own_logits, truth.labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
                boxes = self.decode(cells.boxes, own_values.float())
                loss = loss + iou_loss(boxes[:, :, None], truth.boxes[:, None])
                total = total + torch.where(region, loss, 0.0).sum(dim=1)
                count = count + region.sum(dim=1)
            means.append(torch.where(count > 0, total / count, math.inf))
        return torch.stack(means).argmin(dim=0)
