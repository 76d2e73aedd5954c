"""Fully Convolutional AlignDet: DPM + ADM (section 4.3, Figure 2).

The DPM learns one anchor a location; the ADM samples the same features exactly inside it and predicts
classes and a second refinement. No gradient flows through the refined anchors; the shared features do
get the ADM's. At test time the score is the ADM's alone.
"""

from typing import Any

import torch
from torch import Tensor

from aligncli.matching import GroundTruth
from aligncli.models.adm import AlignedDetectionModule
from aligncli.models.detector import Detector, Geometry
from aligncli.models.dpm import DenseProposalModule
from aligncli.models.head_loss import HeadLoss
from aligncli.models.postprocess import Candidates


class AlignDet(Detector):
    """Backbone and neck shared by a dense proposal module and an aligned detection module.

    Args:
        dpm: a module with the DenseProposalModule contract.
        loss: of the ADM; the DPM holds its own.
    """

    def __init__(self, *, dpm: DenseProposalModule, adm: AlignedDetectionModule, loss: HeadLoss, **shared: Any) -> None:
        super().__init__(**shared)
        self.dpm = dpm
        self.adm = adm
        self.loss = loss

    def losses(self, features: list[Tensor], geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"adm_class", "adm_box"} and the DPM's. The ADM's targets are found on the anchors just refined."""
        refined, losses = self.dpm(features, geometry, truth)
        logits, deltas = self.adm(features, refined, geometry.strides)
        classes, boxes = self.loss(torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(refined, dim=1), truth)
        return losses | {"adm_class": classes, "adm_box": boxes}

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """The ADM's logits and deltas on the refined anchors."""
        refined, _ = self.dpm(features, geometry, None)
        outputs = zip(*self.adm(features, refined, geometry.strides), refined, strict=True)
        return [Candidates(*level, stds=self.loss.box_stds) for level in outputs]
