"""Augmentation and resizing of one sample: flip, short-side jitter, short 800 / long 1333 (section 5.1).

Boxes are xyxy pixels, half-open, so a flip maps x to W - x and a resize multiplies by the exact ratio of the
sizes, which differs a little between the axes because sizes are whole numbers.
"""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor

from aligncli.config import InputConfig
from aligncli.data.dataset import Sample, Target
from aligncli.data.random_stream import RandomStream


def resized_size(height: int, width: int, *, short_side: float, long_side: float) -> tuple[int, int]:
    """(height, width) with the short side at `short_side`, or the long one at `long_side` if that is less."""
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: Tensor, *, short_side: float, long_side: float) -> tuple[Tensor, tuple[float, float]]:
    """Bilinear, antialiased. uint8 (3, H, W) -> uint8 (3, h, w) and the exact ratios (w / W, h / H)."""
    _, height, width = image.shape
    size = resized_size(height, width, short_side=short_side, long_side=long_side)
    if size != (height, width):
        image = vision.resize(image, list(size), antialias=True)
    return image, (size[1] / width, size[0] / height)


def prepare(image: Tensor, target: Target, *, short_side: float, long_side: float, flip: bool) -> Sample:
    """Flip, then resize. image uint8 (3, H, W) -> uint8 (3, h, w).

    The target is a new one; its `scale` tells network input pixels per original pixel.
    """
    boxes = target["boxes"]
    if flip:
        width = image.shape[-1]
        image = image.flip(-1)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    image, (ratio_x, ratio_y) = resize_image(image, short_side=short_side, long_side=long_side)
    scale_x, scale_y = target["scale"]
    return image, Target(
        boxes=boxes * torch.tensor([ratio_x, ratio_y, ratio_x, ratio_y]),
        labels=target["labels"],
        crowd=target["crowd"],
        image_id=target["image_id"],
        size=target["size"],
        scale=(scale_x * ratio_x, scale_y * ratio_y),
    )


def augment(sample: Sample, input_config: InputConfig, stream: RandomStream) -> Sample:
    """The training transform: a random flip and a short side drawn between the configured two."""
    num_sides = input_config.max_short_side - input_config.min_short_side + 1
    flip = stream.unit() < input_config.flip_probability
    short_side = input_config.min_short_side + stream.below(num_sides)
    return prepare(*sample, short_side=short_side, long_side=input_config.long_side, flip=flip)
