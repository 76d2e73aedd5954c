"""RoIAlign over the levels of a pyramid: what the second stage of Faster R-CNN reads."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper


class RoIPool(nn.Module):
    """torchvision's RoIAlign over levels, in the frame of our anchors: a cell's value lies at its centre.

    Its own `MultiScaleRoIAlign` keeps the older frame, in which every box is read half a cell to the right and below.

    Args:
        strides: of the finest maps, as many as are read; increasing by factors of 2.
        canonical_scale, canonical_level: a RoI with that side in pixels is read from the map with stride
            2**canonical_level, one of half the side from one level finer (equation 1 of the FPN paper).
    """

    def __init__(
        self,
        strides: Sequence[int],
        *,
        resolution: int,
        sampling_ratio: int,
        canonical_scale: float = 224.0,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.resolution = resolution
        self.sampling_ratio = sampling_ratio
        finest, coarsest = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
        self.map_levels = LevelMapper(finest, coarsest, canonical_scale, canonical_level)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Mapping[str, Tensor], boxes: list[Tensor], image_sizes: object) -> Tensor:
        """Boxes (P, 4) of each image to (R, C, h, w), image after image; sizes are what torchvision's take too."""
        del image_sizes
        features = list(maps.values())[: len(self.strides)]  # coarser maps are not read
        images = torch.cat([torch.full_like(each[:, :1], number) for number, each in enumerate(boxes)])
        rois = torch.cat((images, torch.cat(boxes)), dim=1)
        own_level = self.map_levels(boxes)
        pooled = features[0].new_zeros(len(rois), features[0].shape[1], self.resolution, self.resolution)
        for level, x in enumerate(features):
            chosen = torch.where(own_level == level)[0]
            pooled[chosen] = self._read(x, rois[chosen], level).to(pooled.dtype)
        return pooled

    def pool_everywhere(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Boxes (N, P, 4) to (N * P, C, h, w), in static shapes: each is read from every map, and one is kept."""
        image = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
        rois = torch.cat((image[:, None, None].expand(-1, boxes.shape[1], 1), boxes), dim=-1).flatten(0, 1)
        own_level = self.map_levels([boxes.flatten(0, 1)])[:, None, None, None]
        pooled = features[0].new_zeros(())
        for level, x in enumerate(features[: len(self.strides)]):
            pooled = torch.where(own_level == level, self._read(x, rois, level), pooled)
        return pooled

    def _read(self, x: Tensor, rois: Tensor, level: int) -> Tensor:
        scale = 1 / self.strides[level]
        return roi_align(
            x, rois, self.resolution, spatial_scale=scale, sampling_ratio=self.sampling_ratio, aligned=True
        )
