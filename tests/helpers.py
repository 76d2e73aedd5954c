"""Small detectors and images that several test modules use."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from aligncli.build import build_model
from aligncli.catalog import load_recipe
from aligncli.config import Recipe
from aligncli.models.detector import Detector

# Real photographs in COCO format. Tests that need them skip, saying so, where this folder is absent.
REAL_DATA = Path(os.environ.get("ALIGNCLI_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def tiny_recipe(name: str = "aligndet_small", changes: dict[str, object] | None = None) -> Recipe:
    """A small-scale recipe that starts from random weights and loads data in this process."""
    return load_recipe(name).changed({"weights": "none", "input.workers": 0} | (changes or {}))


def tiny_detector(
    name: str = "aligndet_small", *, num_classes: int = 3, seed: int = 0, changes: dict[str, object] | None = None
) -> Detector:
    """That recipe's detector, with random weights that `seed` determines."""
    torch.manual_seed(seed)
    return build_model(tiny_recipe(name, changes), num_classes=num_classes)


def random_batch(count: int = 2, *, size: int = 96, num_classes: int = 3, seed: int = 0) -> tuple[list[Tensor], list]:
    """Images of noise with three boxes each."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, size, size, generator=generator) for _ in range(count)]
    targets = []
    for _ in images:
        low = torch.rand(3, 2, generator=generator) * size / 2
        boxes = torch.cat([low, low + 10 + torch.rand(3, 2, generator=generator) * size / 3], dim=1)
        labels = torch.randint(num_classes, (3,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels})
    return images, targets
