"""Feature alignment: from a map and one box a cell to one feature a cell (Figure 3).

Every variant is called the same way, so that the ADM does not know which one it holds. Boxes are xyxy
pixels of the network input.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from aligncli.ops import roi_conv


class Alignment(Protocol):
    """What the ADM asks of an alignment variant."""

    def __call__(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """Maps (N, C, H, W) and boxes (N, H * W, 4), level by level, to aligned maps (N, O, H, W)."""
        ...


class RoIConvAlignment(nn.Module):
    """(d) RoIConv: a convolution that samples exactly inside each location's refined anchor (section 4.2).

    Args:
        backend: who computes it, see aligncli.ops.choose_backend.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, bias: bool, backend: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.backend = backend
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """See Alignment. One call for all levels: they share the weight."""
        rows = roi_conv(list(features), list(boxes), self.weight, self.bias, stride=list(strides), backend=self.backend)
        return [
            row.unflatten(1, (x.shape[-2], x.shape[-1])).permute(0, 3, 1, 2)  # channels-last, no copy
            for row, x in zip(rows, features, strict=True)
        ]
