"""What an exported file takes and gives, as data: the same in every format, and written into the file.

In ONNX it is the metadata entry "aligncli", in PyTorch's format the extra file of that name, both JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from aligncli.data.dataset import Sample
from aligncli.data.transforms import prepare
from aligncli.engine.export.lowering import Lowering
from aligncli.engine.inference import LoadedRun
from aligncli.errors import UserError

METADATA = "aligncli"
INPUT, OUTPUTS = "images", ("boxes", "scores", "labels")
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Contract:
    """How images are put before the file.

    size: (height, width) of the input in pixels, or None for any multiple of `divisor`, at least `least`. batch: N.
    padding: RGB in 0..1 of what fills the rest, right of and below an image.
    """

    size: tuple[int, int] | None
    batch: int
    divisor: int
    least: int
    padding: tuple[float, ...]

    @classmethod
    def of(cls, loaded: LoadedRun, *, size: tuple[int, int] | None, batch: int) -> Contract:
        """For a run's detector. Raises UserError for a size that it cannot take."""
        detector: Any = loaded.model
        divisor = detector.size_divisor
        two_cells = 2 * max(divisor, *detector.strides)  # on the coarsest map: a shape of 1 is special to tracers
        least = -(-two_cells // divisor) * divisor
        for side in size or ():
            if side % divisor or side < least:
                raise UserError(f"input size: {side} pixels must be a multiple of {divisor}, and at least {least}")
        padding = tuple(round(float(value), 6) for value in detector.pixel_mean.flatten())
        return cls(size=size, batch=batch, divisor=divisor, least=least, padding=padding)

    def place(self, sample: Sample, loaded: LoadedRun) -> tuple[Tensor, Any]:
        """An image of a data set as the file takes it, (3, H, W) float 0..1, with its target on it."""
        image, target = sample
        if self.size is None:
            short, long = float(loaded.recipe.input.max_short_side), float(loaded.recipe.input.long_side)
        else:
            scale = min(self.size[0] / image.shape[-2], self.size[1] / image.shape[-1])
            short, long = scale * min(image.shape[-2:]), scale * max(image.shape[-2:])
        image, target = prepare(image, target, short_side=short, long_side=long, flip=False)
        height, width = self.size or (self._padded(side) for side in image.shape[-2:])
        canvas = torch.tensor(self.padding)[:, None, None].repeat(1, height, width)
        canvas[:, : image.shape[-2], : image.shape[-1]] = image / 255
        return canvas, target

    def example(self) -> Tensor:
        """Images to trace the computation with."""
        height, width = self.size or (self.least, self.least + self.divisor)
        return torch.rand(self.batch, 3, height, width, generator=torch.Generator().manual_seed(0))

    def describe(self, loaded: LoadedRun, lowering: Lowering | None) -> dict[str, Any]:
        """All that a program needs to use the file, as plain data."""
        detector: Any = loaded.model
        recipe, sides = loaded.recipe, self.size or ("height", "width")
        if self.size:
            resize: dict[str, Any] = {"fit_into": list(self.size)}
        else:
            resize = {"short_side": recipe.input.max_short_side, "long_side": recipe.input.long_side}
        settings: Any = recipe.model.postprocess
        num_detections = min(settings.detections_per_image, settings.candidates_per_level * len(detector.strides))
        return {
            "version": VERSION,
            "recipe": recipe.name,
            "classes": list(loaded.categories.names),
            "coco_ids": list(loaded.categories.coco_ids),
            "input": {
                "name": INPUT,
                "shape": [self.batch, 3, *sides],
                "values": "float32, RGB, 0..1; normalised inside",
                "resize": resize,
                "multiple_of": self.divisor,
                "at_least": self.least,
                "padding": list(self.padding),
            },
            "outputs": {
                "boxes": [self.batch, num_detections, 4],
                "scores": [self.batch, num_detections],
                "labels": [self.batch, num_detections],
            },
            "strides": list(detector.strides),
            "postprocess": settings.model_dump(),
            "roi_conv": lowering.value if lowering else None,
            "versions": {name: version(name) for name in ("aligncli", "torch")},
        }

    def _padded(self, side: int) -> int:
        return max(self.least, -(-side // self.divisor) * self.divisor)
