"""Faster R-CNN on a pyramid, on one map, or on C4: the two-stage detector of Table 1.

Ren et al. 2015 with the pyramid and the settings of Lin et al. 2017. Proposals, sampling and losses are torchvision's
`RegionProposalNetwork` and `RoIHeads`; anchors are ours, centred on cells, and so is post-processing. torchvision
counts background as class 0 and knows no crowds: `_their_targets` and `_score` are the border.
Boxes are xyxy pixels of the network input.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from aligncli.anchors import AnchorGenerator
from aligncli.boxes import clip_boxes, decode_boxes
from aligncli.matching import GroundTruth
from aligncli.models.branches import flatten_cells, init_he_uniform
from aligncli.models.detector import Detector, Geometry
from aligncli.models.multibox import softmax_score_logits
from aligncli.models.postprocess import Candidates


class FasterRCNN(Detector):
    """Backbone and neck, a region proposal network, and a head that reads a fixed grid inside every proposal.

    Args:
        rpn: torchvision's, around `CellAnchors` and `ProposalHead`.
        roi_heads: torchvision's, around a `RoIPool`, a box head and a `BoxPredictor`.
        box_stds: of the box predictor's deltas.
    """

    def __init__(
        self,
        *,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        box_stds: tuple[float, float, float, float],
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.box_stds = box_stds

    def losses(self, features: list[Tensor], geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """{"rpn_class", "rpn_box", "roi_class", "roi_box"}: means over the boxes sampled in each stage.

        With several processes each samples and counts in its own images: equal to one process's means where every
        image yields as many samples as are asked for.
        """
        images, targets = _image_list(geometry), _their_targets(truth)
        maps = _name_maps(features)
        proposals, rpn_losses = self.rpn(images, maps, targets)
        _, roi_losses = self.roi_heads(maps, proposals, images.image_sizes, targets)
        return {
            "rpn_class": rpn_losses["loss_objectness"],
            "rpn_box": rpn_losses["loss_rpn_box_reg"],
            "roi_class": roi_losses["loss_classifier"],
            "roi_box": roi_losses["loss_box_reg"],
        }

    def detect(self, features: list[Tensor], geometry: Geometry) -> list[dict[str, Tensor]]:
        """Detections an image; see `Detector.forward`. The images have different numbers of proposals."""
        images = _image_list(geometry)
        maps = _name_maps(features)
        proposals, _ = self.rpn(images, maps)
        logits, values = self._score(self.roi_heads.box_roi_pool(maps, proposals, images.image_sizes))
        counts = [len(boxes) for boxes in proposals]
        padded = Candidates(
            pad_sequence(list(logits.split(counts)), batch_first=True, padding_value=-torch.inf),
            pad_sequence(list(values.split(counts)), batch_first=True),
            pad_sequence(proposals, batch_first=True),
            self.decode,
        )
        return self.postprocess([padded], geometry.sizes)

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """What the detector costs, in static shapes, for `raw_forward`: everything but NMS among proposals.

        As many boxes as there would be proposals at most, in training as there would be samples: those with the best
        objectness, overlapping or not.
        """
        objectness, deltas = (
            torch.cat([flatten_cells(level, size) for level in levels], dim=1)
            for levels, size in zip(self.rpn.head(features), (1, 4), strict=True)
        )
        generator = self.rpn.anchor_generator
        assert isinstance(generator, CellAnchors)
        anchors = generator.of_maps(features)
        sampled, kept = self.roi_heads.fg_bg_sampler.batch_size_per_image, self.rpn.post_nms_top_n()
        count = min(sampled if self.training else kept, len(anchors))
        best = objectness[..., 0].topk(count, dim=1).indices  # (N, P)
        deltas = deltas.gather(1, best[..., None].expand(-1, -1, 4))
        proposals = clip_boxes(decode_boxes(anchors[best], deltas), geometry.sizes)
        pooled = self.roi_heads.box_roi_pool.pool_everywhere(features, proposals)
        logits, values = (x.unflatten(0, best.shape) for x in self._score(pooled))
        return [Candidates(logits, values, proposals, self.decode)]

    def decode(self, references: Tensor, values: Tensor) -> Tensor:
        """Proposals and deltas, (..., 4) each, to boxes."""
        return decode_boxes(references, values, self.box_stds)

    def _score(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, K) whose sigmoid is the softmax score, and deltas (R, K, 4), of pooled (R, C, h, w)."""
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        background_last = logits.roll(-1, dims=1)
        return softmax_score_logits(background_last), deltas.unflatten(1, (-1, 4))[:, 1:]


class CellAnchors(nn.Module):
    """Our anchors behind the interface of torchvision's generator, which centres its own on (X S, Y S)."""

    def __init__(self, anchors: AnchorGenerator, strides: Sequence[int]) -> None:
        super().__init__()
        self.anchors = anchors
        self.strides = tuple(strides)

    def forward(self, images: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors (R, 4) of all levels, the same tensor for every image."""
        return [self.of_maps(feature_maps)] * len(images.image_sizes)

    def of_maps(self, features: Sequence[Tensor]) -> Tensor:
        """Anchors (R, 4) of all levels, finest level first."""
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        return torch.cat(self.anchors.for_levels(shapes, self.strides, device=features[0].device))


class ProposalHead(RPNHead):
    """torchvision's, in float32 from here on: it would round anchors to the deltas' half precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (N, C, H, W) to objectness (N, A, H, W) and deltas (N, 4 A, H, W) a level."""
        objectness, deltas = super().forward(x)
        return [level.float() for level in objectness], [level.float() for level in deltas]


class StageHead(nn.Module):
    """C4's head: the backbone's remaining stages on every RoI, then the mean over positions.

    The stages stay the backbone's, so this holds them without registering them a second time.
    """

    def __init__(self, stages: nn.Module) -> None:
        super().__init__()
        self.borrowed = (stages,)

    def forward(self, pooled: Tensor) -> Tensor:
        """RoIs (R, C, h, w) to features (R, C')."""
        return self.borrowed[0](pooled).mean(dim=(2, 3))


class BoxPredictor(FastRCNNPredictor):
    """torchvision's, in float32 and with Fast R-CNN's initial weights: Gaussian, .01 for classes and .001 for boxes."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes + 1)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, C) to logits (R, 1 + K), background first, and deltas (R, 4 + 4 K)."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()


def two_fc_head(in_channels: int, channels: int) -> TwoMLPHead:
    """torchvision's two fully connected layers, with He initialisation as the neck has it."""
    head = TwoMLPHead(in_channels, channels)
    init_he_uniform(head)
    return head


def _image_list(geometry: Geometry) -> ImageList:
    """Image sizes for torchvision, which asks for pixels too; nothing of it that is used here looks at them."""
    sizes = [(int(height), int(width)) for height, width in geometry.sizes.tolist()]
    return ImageList(geometry.sizes, sizes)


def _name_maps(features: list[Tensor]) -> dict[str, Tensor]:
    return {str(level): x for level, x in enumerate(features)}


def _their_targets(truth: GroundTruth) -> list[dict[str, Tensor]]:
    """Objects an image, class k as label k + 1. Crowds are dropped: what lies in them may be background."""
    return [
        {"boxes": boxes[objects], "labels": labels[objects] + 1}
        for boxes, labels, objects in zip(truth.boxes, truth.labels, truth.objects, strict=True)
    ]
