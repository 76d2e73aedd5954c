"""Implicit RoIs of torchvision's one-stage detectors: RetinaNet, FCOS, SSD, SSDlite.

torchvision centres anchors, and the points of FCOS, on X S where the cell's own centre, in the frame of eq. 2
and 3 and of RoIAlign, is (X + .5) S; and it rounds strides down to what divides the padded image. "centred
anchors" are the same anchors moved onto their cells: the difference is what this costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from aligncli.analysis.alignment.locations import Locations, per_box
from aligncli.analysis.alignment.taps import deciding_kernel
from aligncli.boxes import clip_boxes
from aligncli.errors import UserError
from aligncli.ops import implicit_rois, roi_taps

CENTRED = 0.01  # cells: anchors closer than this to their cell's centre need no remark


class TorchvisionObserver:
    """See locations.Observer. Raises UserError for a network that is not one-stage.

    Args:
        network: torchvision's, in evaluation mode.
        name: for messages.
    """

    def __init__(self, network: nn.Module, *, name: str) -> None:
        if not isinstance(network, RetinaNet | FCOS | SSD):
            raise UserError(
                f"{name} is no one-stage detector: RoIAlign gives it aligned features, "
                "there are no implicit RoIs that analyze-alignment could show"
            )
        self.network: Any = network
        self.kernel_size = deciding_kernel(network.head)
        self.title = f"{name.rpartition(':')[2]}, conv {self.kernel_size}×{self.kernel_size}"
        self.remarks: list[str] = []

    def __call__(self, images: Sequence[Tensor]) -> list[Locations]:
        """See Observer. SSD's own resize is undone in what comes back."""
        network = self.network
        batch, _ = network.transform(list(images))
        maps = network.backbone(batch.tensors)
        maps = [maps] if isinstance(maps, Tensor) else list(maps.values())
        outputs = network.head(maps)
        sizes = torch.tensor(batch.image_sizes, device=batch.tensors.device)  # (N, 2) height, width
        passed = torch.tensor([image.shape[-2:] for image in images], device=sizes.device)
        back = (passed / sizes).flip(-1).repeat(1, 2)[:, None]  # (N, 1, 4): x, y, x, y
        per_cell = network.anchor_generator.num_anchors_per_location()
        counts = [x.shape[-2] * x.shape[-1] * count for x, count in zip(maps, per_cell, strict=True)]
        anchors = torch.stack(network.anchor_generator(batch, maps)).split(counts, dim=1)
        parts = {name: values.split(counts, dim=1) for name, values in outputs.items()}
        strides = self._strides(batch.tensors.shape[-1], maps)
        grids = [
            {
                size: per_box(
                    implicit_rois(x.shape[-2], x.shape[-1], size, stride, device=x.device).view(-1, 4), like=own
                )
                for size in (1, self.kernel_size)
            }
            for x, own, stride in zip(maps, anchors, strides, strict=True)
        ]
        shifts = [_centers(grid[1]) - _centers(own) for grid, own in zip(grids, anchors, strict=True)]
        self.remarks = self._remark_on([shift.mean(dim=(0, 1)) / stride for shift, stride in zip(shifts, strides)])
        levels = []
        for index, (own, grid, stride) in enumerate(zip(anchors, grids, strides, strict=True)):
            values = {name: part[index] for name, part in parts.items()}
            implicit = grid[self.kernel_size] * back
            final = clip_boxes(self._decode(values["bbox_regression"], own), sizes)
            boxes = {"decoded boxes": final}
            if not isinstance(network, FCOS):
                centred = {"centred anchors": own + shifts[index].repeat(1, 1, 2)} if self.remarks else {}
                boxes = {"anchors": own} | centred | boxes
            levels.append(
                Locations(
                    level=f"P{math.log2(stride):.0f}" if math.log2(stride).is_integer() else f"stride {stride:g}",
                    pairs={name: (each * back, implicit) for name, each in boxes.items()},
                    final=final * back,
                    scores=self._scores(values),
                    real=(_centers(grid[1]) < sizes.flip(-1)[:, None]).all(dim=-1),
                    taps=partial(roi_taps, implicit, self.kernel_size, 1.0),
                )
            )
        return levels

    def _strides(self, width: int, maps: Sequence[Tensor]) -> list[float]:
        """SSD's own steps; elsewhere a power of two that doubles a level, and maps are ceil(width / stride) wide."""
        steps = getattr(self.network.anchor_generator, "steps", None)
        finest = math.ceil(math.log2(width / maps[0].shape[-1]))
        return steps or [2.0 ** (finest + level) for level in range(len(maps))]

    def _decode(self, values: Tensor, anchors: Tensor) -> Tensor:
        coder = self.network.box_coder
        decode = coder.decode if isinstance(self.network, FCOS) else coder.decode_single
        return torch.stack([decode(*pair) for pair in zip(values, anchors, strict=True)])

    def _scores(self, values: dict[str, Tensor]) -> Tensor:
        logits = values["cls_logits"]
        match self.network:
            case SSD():
                return logits.softmax(dim=-1)[..., 1:].amax(dim=-1)  # class 0 is the background
            case FCOS():
                return (logits.amax(dim=-1).sigmoid() * values["bbox_ctrness"].squeeze(-1).sigmoid()).sqrt()
        return logits.amax(dim=-1).sigmoid()

    def _remark_on(self, shifts: Sequence[Tensor]) -> list[str]:
        """One line where boxes are predicted from other centres than the cells'. `shifts`: x, y in cells, a level."""
        largest = torch.stack(list(shifts)).amax(dim=0).tolist()
        if max(largest) < CENTRED:
            return []
        what = "points" if isinstance(self.network, FCOS) else "anchors"
        x, y = (f"{part:.2f}" for part in largest)
        return [f"its {what} lie up to {x} cells left of, and {y} above, the centres of the cells that predict them"]


def _centers(boxes: Tensor) -> Tensor:
    return 0.5 * (boxes[..., :2] + boxes[..., 2:])
