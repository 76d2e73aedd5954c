"""FoveaBox (Kong et al. 2019, first version): the middle of an object, its fovea, learns class and box.

Objects go to every level whose range of scales holds them. On it, cells inside the box shrunk by sigma_1 are
positive, those outside the box shrunk by sigma_2 negative, and those between are ignored.
Values are log(distance / r), ltrb distances over the level's basic scale r (equation 5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aligncli.boxes import MAX_LOG_SCALE, box_areas
from aligncli.errors import RecipeError
from aligncli.losses import focal_loss, loss_normalizer
from aligncli.matching import GroundTruth
from aligncli.models.branches import Branches
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
    in_core,
)

# A fovea narrower than a cell can hold a centre outside the object: distances are at least this share of r.
MIN_DISTANCE = 1 / 16


class FoveaBoxHead(DenseHead):
    """RetinaNet's branches with one box a cell and no anchors.

    Args:
        basic_scale: r, the side of the objects a level is made for, in strides.
        scale_range: eta; a level learns objects with sides sqrt(w h) of r / eta to r * eta.
        fovea, surround: sigma_1 and sigma_2, shares of the object's sides.
        smooth_l1_beta: in units of values.
    """

    def __init__(
        self,
        *,
        branches: Branches,
        basic_scale: float,
        scale_range: float,
        fovea: float,
        surround: float,
        focal_alpha: float,
        focal_gamma: float,
        smooth_l1_beta: float,
    ) -> None:
        super().__init__()
        if fovea > surround:
            raise RecipeError(f"fovea is {fovea}, above surround {surround}: the ignored ring lies around the fovea")
        self.branches = branches
        self.basic_scale = basic_scale
        self.scale_range = scale_range
        self.fovea = fovea
        self.surround = surround
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.smooth_l1_beta = smooth_l1_beta

    def predict(self, features: list[Tensor], geometry: Geometry, *, classify: bool) -> Predictions:
        """See DenseHead; values are log(distance / r)."""
        return Predictions(
            references=cell_references(geometry.shapes, geometry.strides, device=geometry.sizes.device),
            values=self.branches.regress(features),
            logits=self.branches.classify(features) if classify else None,
        )

    def encode(self, references: Tensor, boxes: Tensor) -> Tensor:
        """Values (..., 4) that turn cells (..., 4) into boxes (..., 4)."""
        distances = encode_distances(references, boxes) / (self.basic_scale * cell_strides(references))
        return distances.clamp(min=MIN_DISTANCE).log()

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Cells and values to boxes."""
        distances = values.clamp(max=MAX_LOG_SCALE).exp() * (self.basic_scale * cell_strides(references))
        return decode_distances(references, distances)

    def losses(self, predictions: Predictions, geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"class", "box"}: focal, and smooth L1 of the values, over positives."""
        assert predictions.logits is not None
        cells = Cells.of(predictions.references)
        num_levels = len(geometry.strides)
        matches = assign_cells(
            cells,
            truth,
            positive=self._region(self.fovea, num_levels),
            ignored=self._region(self.surround, num_levels),
        )
        num_positives = loss_normalizer(matches, "positives")
        classes = focal_loss(predictions.logits, matches.labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
        values = torch.cat(predictions.values, dim=1).float()
        distance = F.smooth_l1_loss(
            values, self.encode(cells.boxes, matches.boxes), beta=self.smooth_l1_beta, reduction="none"
        ).sum(dim=-1)
        boxes = torch.where(matches.positive, distance, 0.0).sum()
        return {"class": classes / num_positives, "box": boxes / num_positives}

    def _region(self, shrink: float, num_levels: int) -> Region:
        """The shrunk box, on the levels whose range holds the object; the outer levels' ranges are open."""

        def region(cells: Cells, boxes: Tensor) -> Tensor:
            scale = box_areas(boxes).sqrt()[:, None]  # (N, 1, G)
            basic = (self.basic_scale * cells.strides)[:, None]
            suits = (scale >= basic / self.scale_range) | (cells.levels == 0)[:, None]
            suits &= (scale <= basic * self.scale_range) | (cells.levels == num_levels - 1)[:, None]
            return suits & in_core(cells, boxes, shrink=shrink)

        return region
