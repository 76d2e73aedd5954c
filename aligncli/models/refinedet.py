"""RefineDet (Zhang et al. 2018): anchors refined by a first multi-box head, classified and refined again by a second.

The anchor refinement module (ARM) sits on the backbone's own maps and tells object from background; transfer
connection blocks turn these maps into a pyramid; the object detection module (ODM) sits on that, at the same
cells: a plain convolution, whatever the anchor has become (Figure 3a). Boxes are xyxy pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from aligncli.anchors import AnchorGenerator
from aligncli.boxes import clip_boxes
from aligncli.matching import GroundTruth
from aligncli.models.branches import conv_stack, init_he_uniform, norm_and_activation
from aligncli.models.detector import Detector, Geometry
from aligncli.models.fpn import require_contiguous
from aligncli.models.multibox import MultiBoxLoss, MultiBoxPredictors, softmax_score_logits
from aligncli.models.postprocess import Candidates, logit


class BackboneLevels(nn.Module):
    """The backbone's maps as they are, and a 3x3 stride-2 convolution for each level beyond them.

    Args:
        in_channels: {level: channels} of the backbone's maps.
        channels: of the levels beyond.
        levels: increasing and contiguous; level l has stride 2**l.
    """

    def __init__(
        self, in_channels: Mapping[int, int], *, channels: int, levels: Sequence[int], norm: str = "none"
    ) -> None:
        super().__init__()
        require_contiguous(levels)
        top = max(in_channels)
        self.coarsest_input = min(levels[-1], top)
        self.levels = tuple(levels)
        self.strides = tuple(2**level for level in levels)
        self.channels = tuple(in_channels.get(level, channels) for level in levels)  # a level
        self.extras = nn.ModuleDict()
        for level in range(top + 1, levels[-1] + 1):
            source = in_channels[top] if level == top + 1 else channels
            convolution = nn.Conv2d(source, channels, 3, stride=2, padding=1, bias=norm == "none")
            self.extras[str(level)] = nn.Sequential(convolution, *norm_and_activation(channels, norm))
        init_he_uniform(self)

    def forward(self, maps: Mapping[int, Tensor]) -> list[Tensor]:
        """{level: (N, C, H, W)} to one map for each of `levels`."""
        maps = dict(maps)
        for level, extra in self.extras.items():
            maps[int(level)] = extra(maps[int(level) - 1])
        return [maps[level] for level in self.levels]


class TransferConnections(nn.Module):
    """One transfer connection block a level: two convolutions, plus the coarser block's output, one more.

    Args:
        in_channels: of each level's map, finest first. channels: of every output map.
    """

    def __init__(self, in_channels: Sequence[int], *, channels: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.laterals = nn.ModuleList(
            nn.Sequential(
                *conv_stack(source, channels, num_convs=1, kernel_size=3, norm=norm),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for source in in_channels
        )
        self.upsamplings = nn.ModuleList(nn.ConvTranspose2d(channels, channels, 2, stride=2) for _ in in_channels[1:])
        self.outputs = nn.ModuleList(
            nn.Sequential(
                *norm_and_activation(channels, norm, inplace=False),
                nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
                *norm_and_activation(channels, norm),
            )
            for _ in in_channels
        )
        init_he_uniform(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C, H, W), finest first, to maps (N, channels, H, W)."""
        top = len(features) - 1
        pyramid: list[Tensor] = []
        for level in range(top, -1, -1):
            merged = self.laterals[level](features[level])
            if level < top:
                height, width = merged.shape[-2:]  # an odd map's coarser one, doubled, is a cell larger
                merged = merged + self.upsamplings[level](pyramid[0])[..., :height, :width]
            pyramid.insert(0, self.outputs[level](merged))
        return pyramid


@dataclass(frozen=True)
class RefinedAnchors:
    """What the ARM says, levels concatenated: logits (N, R, 2), deltas (N, R, 4), and what the ODM sees of it.

    anchors: (R, 4) predefined. boxes: (N, R, 4) refined, inside the image, detached.
    dropped: (N, R) bool, background beyond doubt.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    boxes: Tensor
    dropped: Tensor


class RefineDet(Detector):
    """ARM, transfer connection blocks and ODM.

    Args:
        arm, odm: predictors of one class (object) on the backbone's maps, and of K on the transferred ones.
        negative_threshold: background score of the ARM above which the ODM does not look at an anchor.
        min_side: pixels; refined anchors are at least that wide and high, so that deltas stay finite.
    """

    def __init__(
        self,
        *,
        anchors: AnchorGenerator,
        arm: MultiBoxPredictors,
        transfer: TransferConnections,
        odm: MultiBoxPredictors,
        arm_loss: MultiBoxLoss,
        odm_loss: MultiBoxLoss,
        negative_threshold: float,
        min_side: float,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.anchors = anchors
        self.arm = arm
        self.transfer = transfer
        self.odm = odm
        self.arm_loss = arm_loss
        self.odm_loss = odm_loss
        self.least_object_logit = logit(1.0 - negative_threshold)
        self.min_side = min_side

    def losses(self, features: list[Tensor], geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"arm_class", "arm_box", "odm_class", "odm_box"}. The ODM is matched on the anchors just refined."""
        refined = self.refine(features, geometry)
        objects = replace(truth, labels=torch.zeros_like(truth.labels))
        arm_classes, arm_boxes = self.arm_loss(refined.logits, refined.deltas, refined.anchors, objects)
        transferred = self.transfer(features)
        logits, deltas = self.odm.classify(transferred), self.odm.regress(transferred)
        odm_classes, odm_boxes = self.odm_loss(
            torch.cat(logits, dim=1), torch.cat(deltas, dim=1), refined.boxes, truth, dropped=refined.dropped
        )
        return {"arm_class": arm_classes, "arm_box": arm_boxes, "odm_class": odm_classes, "odm_box": odm_boxes}

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """The ODM's scores and deltas on the refined anchors; dropped ones have score 0."""
        refined = self.refine(features, geometry)
        transferred = self.transfer(features)
        logits, deltas = self.odm.classify(transferred), self.odm.regress(transferred)
        counts = [level.shape[1] for level in deltas]
        levels = zip(logits, deltas, refined.boxes.split(counts, 1), refined.dropped.split(counts, 1), strict=True)
        return [
            Candidates(
                softmax_score_logits(level).masked_fill(dropped[..., None], -torch.inf),
                values,
                boxes,
                decode=self.odm_loss.decode,
            )
            for level, values, boxes, dropped in levels
        ]

    def refine(self, features: list[Tensor], geometry: Geometry) -> RefinedAnchors:
        """The ARM. No gradient flows through the refined anchors, as in the authors' code."""
        logits = torch.cat(self.arm.classify(features), dim=1)
        deltas = torch.cat(self.arm.regress(features), dim=1)
        anchors = torch.cat(self.anchors.for_levels(geometry.shapes, geometry.strides, device=geometry.sizes.device))
        with torch.no_grad():
            boxes = self.arm_loss.decode(anchors, deltas.float())
            boxes = clip_boxes(boxes, geometry.sizes, min_side=self.min_side)
            dropped = softmax_score_logits(logits)[..., 0] < self.least_object_logit
        return RefinedAnchors(logits, deltas, anchors, boxes, dropped)
