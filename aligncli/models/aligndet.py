"""Fully Convolutional AlignDet: DPM + ADM (section 4.3, Figure 2).

The DPM learns one anchor a location; the ADM samples the same features exactly inside it and predicts
classes and a second refinement. No gradient flows through the refined anchors; the shared features do
get the ADM's. At test time the score is the ADM's alone.
"""

from typing import Any

import torch
from torch import Tensor

from aligncli.errors import RecipeError
from aligncli.matching import GroundTruth
from aligncli.models.adm import AlignedDetectionModule
from aligncli.models.detector import Detector, Geometry
from aligncli.models.head_loss import HeadLoss
from aligncli.models.heads.base import DenseHead
from aligncli.models.postprocess import Candidates


class AlignDet(Detector):
    """Backbone and neck shared by a dense proposal module and an aligned detection module.

    Args:
        dpm: a dense head with one box a cell.
        min_side: pixels; refined anchors are at least that wide and high, so that deltas stay finite.
        loss: of the ADM; the DPM holds its own.
    """

    def __init__(
        self, *, dpm: DenseHead, min_side: float, adm: AlignedDetectionModule, loss: HeadLoss, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if dpm.boxes_per_cell != 1:
            raise RecipeError(
                f"model.dpm makes {dpm.boxes_per_cell} anchors a cell: "
                "a dense proposal module needs one box a cell (one scale and one ratio)"
            )
        self.dpm = dpm
        self.min_side = min_side
        self.adm = adm
        self.loss = loss

    def losses(self, features: list[Tensor], geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"adm_class", "adm_box"} and the DPM's as "dpm_...". The ADM is matched on the anchors just refined."""
        refined, dpm_losses = self.refine(features, geometry, truth)
        logits, deltas = self.adm(features, refined, geometry.strides)
        classes, boxes = self.loss(logits, torch.cat(deltas, dim=1), torch.cat(refined, dim=1), truth)
        losses = {f"dpm_{name}": loss for name, loss in dpm_losses.items()}
        return losses | {"adm_class": classes, "adm_box": boxes}

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """The ADM's logits and deltas on the refined anchors."""
        refined, _ = self.refine(features, geometry, None)
        levels = zip(*self.adm(features, refined, geometry.strides), refined, strict=True)
        return [Candidates(*level, decode=self.loss.decode) for level in levels]

    def refine(
        self, features: list[Tensor], geometry: Geometry, truth: GroundTruth | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The learned anchors (N, H * W, 4) a level, xyxy pixels, and the DPM's losses; see DenseHead.propose."""
        return self.dpm.propose(features, geometry, truth, min_side=self.min_side)
