"""Feature alignment: from a map and one box a cell to one feature a cell (Figure 3, Table 4).

(a) ConvAlignment ignores the boxes, (b) DeformAlignment learns where to look, (c) GuidedAlignment learns it
from the boxes' shapes, (d) RoIConvAlignment computes it from the boxes (eq. 4). All hold one k x k weight of
the same size, shared by the levels, and are called the same way, so that the ADM does not know which one it
holds. Boxes are xyxy pixels of the network input.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.models.branches import OffsetPredictor
from aligncli.ops import (
    deformable_conv,
    deformed_taps,
    implicit_rois,
    roi_conv,
    roi_taps,
    rois_of_offsets,
)


class Alignment(Protocol):
    """What the ADM, and Figure 4, ask of an alignment variant."""

    def __call__(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """Maps (N, C, H, W) and boxes (N, H * W, 4), level by level, to aligned maps (N, O, H, W)."""
        ...

    def implicit_rois(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """The boxes (N, H * W, 4) that the variant really looks at, in pixels: Figure 4 compares them with `boxes`."""
        ...

    def sampling_points(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """Where the taps lie: (N, H * W, k * k, 2) as (x, y) in pixels."""
        ...


class _AlignedConvolution(nn.Module):
    """What the variants have in common: the weight and bias of one k x k convolution.

    Args:
        bias: False where a norm follows.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, bias: bool) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.normal_(self.weight, std=0.01)

    def implicit_rois(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """See Alignment."""
        raise NotImplementedError

    def sampling_points(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """See Alignment. The bin centres of the implicit RoIs (eq. 2), where taps form a grid."""
        rois = self.implicit_rois(features, boxes, strides)
        return [roi_taps(level, self.kernel_size, stride) for level, stride in zip(rois, strides, strict=True)]


class ConvAlignment(_AlignedConvolution):
    """(a) RefineDet's: a plain convolution, which looks at k x k cells whatever the box (eq. 3)."""

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """See Alignment."""
        del boxes, strides
        before, after = self.kernel_size // 2, self.kernel_size - 1 - self.kernel_size // 2
        if before == after:
            return [F.conv2d(x, self.weight, self.bias, padding=before) for x in features]
        padded = [F.pad(x, (before, after, before, after)) for x in features]  # an even kernel, see ops/offsets.py
        return [F.conv2d(x, self.weight, self.bias) for x in padded]

    def implicit_rois(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """Equation 3, the same for every image."""
        rois = []
        for x, level_boxes, stride in zip(features, boxes, strides, strict=True):
            grid = implicit_rois(x.shape[-2], x.shape[-1], self.kernel_size, stride, device=x.device)
            rois.append(grid.view(1, -1, 4).expand_as(level_boxes))
        return rois


class _LearnedOffsetsAlignment(_AlignedConvolution):
    """A deformable convolution; subclasses say where its offsets come from.

    Every level has an offset predictor of its own, as in the authors' code: offsets are in cells, and what
    predicts them need not mean the same at every stride. They are the only parameters beside `weight` and `bias`.

    Args:
        strides: of the levels that it will be called with.
        backend: who computes the taps, see aligncli.ops.choose_backend.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        bias: bool,
        strides: Sequence[int],
        backend: str,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, bias=bias)
        self.backend = backend
        num_offsets = 2 * kernel_size**2
        self.predictors = nn.ModuleDict({str(stride): self.predictor(in_channels, num_offsets) for stride in strides})

    def predictor(self, in_channels: int, num_offsets: int) -> nn.Module:
        """A level's offset predictor."""
        raise NotImplementedError

    def predictor_input(self, features: Tensor, boxes: Tensor) -> Tensor:
        """What a level's predictor sees, (N, ?, H, W)."""
        raise NotImplementedError

    def offsets(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """(N, 2 k k, H, W) a level, in cells, laid out as `roi_offsets`."""
        levels = zip(features, boxes, strides, strict=True)
        return [self.predictors[str(stride)](self.predictor_input(x, level_boxes)) for x, level_boxes, stride in levels]

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """See Alignment."""
        offsets = self.offsets(features, boxes, strides)
        return deformable_conv(features, offsets, self.weight, self.bias, backend=self.backend)

    def implicit_rois(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """Circumscribed rectangles of the sampling points, in the sense of `rois_of_offsets`."""
        offsets = self.offsets(features, boxes, strides)
        return [
            rois_of_offsets(shift.float(), self.kernel_size, stride).flatten(1, 2)
            for shift, stride in zip(offsets, strides, strict=True)
        ]

    def sampling_points(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """See Alignment. Any place: they need not form a grid."""
        offsets = self.offsets(features, boxes, strides)
        return [
            deformed_taps(shift.float(), self.kernel_size, stride)
            for shift, stride in zip(offsets, strides, strict=True)
        ]


class DeformAlignment(_LearnedOffsetsAlignment):
    """(b) A deformable convolution whose offsets are a 1x1 convolution of the features; the boxes play no part."""

    def __init__(self, in_channels: int, out_channels: int, *, offset_std: float = 0.01, **shared: Any) -> None:
        self.offset_std = offset_std
        super().__init__(in_channels, out_channels, **shared)

    def predictor(self, in_channels: int, num_offsets: int) -> nn.Module:
        """Close to no offset at the beginning (section 5.4)."""
        return OffsetPredictor(in_channels, num_offsets, std=self.offset_std)

    def predictor_input(self, features: Tensor, boxes: Tensor) -> Tensor:
        """The features."""
        del boxes
        return features


class GuidedAlignment(_LearnedOffsetsAlignment):
    """(c) Guided Anchoring's: offsets from the width and height of the box, not from where it lies.

    Widths and heights vary too much to be fed raw, so they pass a batch normalisation first (section 5.4).
    """

    def predictor(self, in_channels: int, num_offsets: int) -> nn.Module:
        """Batch normalisation of (width, height), then the 1x1 convolution."""
        del in_channels
        return nn.Sequential(nn.BatchNorm2d(2), OffsetPredictor(2, num_offsets, std=0.01))

    def predictor_input(self, features: Tensor, boxes: Tensor) -> Tensor:
        """(N, 2, H, W): width and height in pixels."""
        sides = boxes[..., 2:] - boxes[..., :2]
        return sides.transpose(1, 2).unflatten(2, (features.shape[-2], features.shape[-1]))


class RoIConvAlignment(_AlignedConvolution):
    """(d) RoIConv: a convolution that samples exactly inside each location's refined anchor (section 4.2).

    Args:
        backend: who computes it, see aligncli.ops.choose_backend.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, bias: bool, backend: str) -> None:
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, bias=bias)
        self.backend = backend

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """See Alignment. One call for all levels: they share the weight."""
        rows = roi_conv(list(features), list(boxes), self.weight, self.bias, stride=list(strides), backend=self.backend)
        return [
            row.unflatten(1, (x.shape[-2], x.shape[-1])).permute(0, 3, 1, 2)  # channels-last, no copy
            for row, x in zip(rows, features, strict=True)
        ]

    def implicit_rois(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]
    ) -> list[Tensor]:
        """The boxes themselves."""
        del features, strides
        return list(boxes)
