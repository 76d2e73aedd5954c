"""What every detector shares: images in, losses or detections out.

The ecosystem's convention (torchvision's), so that detectors can stand in for each other:
`model(images, targets)` returns a dict of scalar losses in training and a list of
{"boxes", "scores", "labels"} in evaluation. Boxes are xyxy pixels of the images as passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aligncli.errors import DataError
from aligncli.matching import GroundTruth, pad_targets
from aligncli.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from aligncli.models.postprocess import Candidates, Postprocess


@dataclass(frozen=True)
class Geometry:
    """Where a batch lies: image sizes (N, 2) as (height, width) pixels, and each map's cells and stride."""

    sizes: Tensor
    shapes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]


class Detector(nn.Module):
    """Backbone and neck, batching of images of different sizes, losses and post-processing of a head.

    Subclasses implement `losses` and `candidates`.

    Args:
        num_classes: K; training takes labels 0..K-1.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        strides: Sequence[int],
        postprocess: Postprocess,
        size_divisor: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.strides = tuple(strides)
        self.postprocess = postprocess
        self.size_divisor = size_divisor
        self.num_classes = num_classes
        # A user's own backbone need not say what it expects: ImageNet's statistics, as torchvision's do
        mean, std = getattr(backbone, "pixel_mean", IMAGENET_MEAN), getattr(backbone, "pixel_std", IMAGENET_STD)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None = None) -> Any:
        """Images: list of (3, h, w) float 0..1. Targets (training): "boxes" (G, 4), "labels" (G,), "crowd" (G,).

        Returns a dict of scalar losses in training mode, else a list of dicts with "boxes" (D, 4),
        "scores" (D,) in 0..1 descending, "labels" (D,). Raises DataError for a label that is no class.
        """
        pixels, sizes = self.batch_images(images)
        features = self.neck(self.backbone(pixels))
        geometry = self.geometry(features, sizes)
        if self.training:
            if targets is None:
                raise ValueError("a detector in training mode needs targets")
            require_labels(targets, self.num_classes)  # before they go to the device, which nobody then waits for
            truth = pad_targets(targets, pixels.device)
            del pixels  # nothing needs them where the stem is frozen, and losses are when memory is fullest
            return self.losses(features, geometry, truth)
        return self.detect(features, geometry)

    def raw_forward(self, pixels: Tensor) -> list[Candidates]:
        """Everything up to post-processing for a padded, normalised batch (N, 3, H, W): static shapes only."""
        features = self.neck(self.backbone(pixels))
        sizes = torch.tensor(pixels.shape[-2:], device=pixels.device).expand(pixels.shape[0], 2)
        return self.candidates(features, self.geometry(features, sizes))

    def geometry(self, features: Sequence[Tensor], sizes: Tensor) -> Geometry:
        """The batch's geometry, read off the maps."""
        return Geometry(sizes, tuple((x.shape[-2], x.shape[-1]) for x in features), self.strides)

    def batch_images(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Normalise, pad with zeros at the right and bottom to a multiple of `size_divisor`, channels-last.

        Returns pixels (N, 3, H, W) and sizes (N, 2) as (height, width) before padding.
        """
        divisor = self.size_divisor
        height = max(image.shape[-2] for image in images)
        width = max(image.shape[-1] for image in images)
        padded = (len(images), 3, -(-height // divisor) * divisor, -(-width // divisor) * divisor)
        pixels = images[0].new_zeros(padded).contiguous(memory_format=torch.channels_last)
        for image, canvas in zip(images, pixels, strict=True):
            canvas[:, : image.shape[-2], : image.shape[-1]] = (image - self.pixel_mean) / self.pixel_std
        sizes = torch.tensor([image.shape[-2:] for image in images], device=pixels.device)
        return pixels, sizes

    def losses(self, features: list[Tensor], geometry: Geometry, truth: GroundTruth) -> dict[str, Tensor]:
        """Scalar losses, already weighted and normalised; their sum is what training minimises."""
        raise NotImplementedError

    def detect(self, features: list[Tensor], geometry: Geometry) -> list[dict[str, Tensor]]:
        """Detections an image; see `forward`."""
        return self.postprocess(self.candidates(features, geometry), geometry.sizes)

    def candidates(self, features: list[Tensor], geometry: Geometry) -> list[Candidates]:
        """One batch of candidates a level, before the score cut."""
        raise NotImplementedError


def require_labels(targets: Sequence[Mapping[str, Any]], num_classes: int) -> None:
    """Raises DataError where a label is not one of 0..K-1: some losses would learn it as background, or everywhere."""
    labels = torch.cat([target["labels"] for target in targets])
    wrong = labels[(labels < 0) | (labels >= num_classes)].tolist()
    if wrong:
        number = next(number for number, target in enumerate(targets) if wrong[0] in target["labels"].tolist())
        raise DataError(
            f"label {wrong[0]} in target {number} of a batch: expected 0..{num_classes - 1}, one of the detector's "
            f"{num_classes} classes (torchvision's begin at 1: subtract 1)"
        )
