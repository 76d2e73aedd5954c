"""The paper's DPM: RetinaNet with a single anchor of scale 4 and ratio 1:1 (section 5.1).

It learns classes and boxes in training, with its own thresholds (.4/.3, Table 5); at test time only its
boxes are used, so its class branch is not computed.
"""

import torch
from torch import Tensor, nn

from aligncli.anchors import AnchorGenerator
from aligncli.boxes import clip_boxes, decode_boxes
from aligncli.matching import GroundTruth
from aligncli.models.dense_head import DenseHead
from aligncli.models.detector import Geometry
from aligncli.models.head_loss import HeadLoss


class RetinaNetDPM(nn.Module):
    """One anchor a cell, refined by a dense head.

    Args:
        min_side: pixels; refined anchors are at least that wide and high, so that deltas stay finite.
    """

    def __init__(self, *, anchors: AnchorGenerator, head: DenseHead, loss: HeadLoss, min_side: float) -> None:
        super().__init__()
        if anchors.num_per_cell != 1:
            raise ValueError(
                f"model.dpm.anchors makes {anchors.num_per_cell} anchors a cell: "
                "a dense proposal module needs one scale and one ratio"
            )
        self.anchors = anchors
        self.head = head
        self.loss = loss
        self.min_side = min_side

    def forward(
        self, features: list[Tensor], geometry: Geometry, truth: GroundTruth | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """See DenseProposalModule."""
        deltas = self.head.regress(features)
        anchors = self.anchors.for_levels(geometry.shapes, geometry.strides, device=geometry.sizes.device)
        refined = [
            clip_boxes(
                decode_boxes(reference, delta.detach().float(), self.loss.box_stds),
                geometry.sizes,
                min_side=self.min_side,
            )
            for reference, delta in zip(anchors, deltas, strict=True)
        ]
        if truth is None:
            return refined, {}
        logits = torch.cat(self.head.classify(features), dim=1)
        classes, boxes = self.loss(logits, torch.cat(deltas, dim=1), torch.cat(anchors), truth)
        return refined, {"dpm_class": classes, "dpm_box": boxes}
