"""Deformable convolution (Dai et al. 2017), in the frame of offsets.py and as large as its input.

A tap that reads anywhere is a RoIConv of one tap in an empty box there, so a deformable convolution is the sum
of kh * kw of them, on the same kernels. Outside the map the features are zero: with zero offsets it is conv2d,
with the offsets of eq. 4 it is RoIConv. torchvision's operator is the same and what the tests compare with; on a
CPU it takes several times as long, and reads outside its memory where an offset is not a number.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aligncli.ops.offsets import deformed_points
from aligncli.ops.roi_conv import roi_conv


def deformable_conv(
    features: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    backend: str = "auto",
) -> list[Tensor]:
    """Convolve with every tap moved by its own offset, at every cell of the levels that share the weight.

    features: (N, C, H, W) a level. offsets: (N, 2 kh kw, H, W) a level, in cells, the layout of `roi_offsets`;
    read in float32 (float64 for float64 features). weight: (O, C, kh, kw), bias: (O,), as in conv2d.
    Returns (N, O, H, W) a level, channels-last. Gradients reach all four, once. `backend` as in `roi_conv`.
    """
    kernel_size = (weight.shape[2], weight.shape[3])
    for level, level_offsets in zip(features, offsets, strict=True):
        wanted = (level.shape[0], 2 * kernel_size[0] * kernel_size[1], *level.shape[2:])
        if level_offsets.shape != wanted:
            raise ValueError(f"deformable_conv: offsets must be {wanted}, got {tuple(level_offsets.shape)}")
    points = [_empty_boxes(level, kernel_size) for level in offsets]
    strides = [1.0] * len(points)  # these boxes are in cells
    sums: list[Tensor] = []
    one: list[Tensor] = []
    for tap, tap_weight in enumerate(weight.flatten(2).unbind(2)):
        boxes = [level[:, :, tap] for level in points]
        tap_bias = bias if tap == 0 else None
        one = roi_conv(list(features), boxes, tap_weight[:, :, None, None], tap_bias, stride=strides, backend=backend)
        # In half precision each tap would round the sum of those before
        more = [row.float() if row.dtype.itemsize == 2 else row for row in one]
        sums = [total + row for total, row in zip(sums, more, strict=True)] if sums else more
    return [
        total.to(row.dtype).unflatten(1, (x.shape[-2], x.shape[-1])).permute(0, 3, 1, 2)  # channels-last, no copy
        for total, row, x in zip(sums, one, features, strict=True)
    ]


class DeformableConv2d(nn.Module):
    """`deformable_conv` with a k x k weight of its own, and offsets that somebody else gives."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Sequence[Tensor], offsets: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C, H, W) and offsets (N, 2 k k, H, W) in cells to maps (N, O, H, W), one of each a level."""
        return deformable_conv(features, offsets, self.weight, backend=self.backend)


def _empty_boxes(offsets: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """(N, H * W, K, 4) in cells: at each sampling point a box without width or height."""
    offsets = offsets if offsets.dtype == torch.float64 else offsets.float()
    y, x = deformed_points(offsets, kernel_size)
    return torch.stack([x, y, x, y], dim=-1).flatten(3, 4).flatten(1, 2)
