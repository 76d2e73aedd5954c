"""RoIConv as a module: in the place of a convolution, with a box for each cell. Frames and boxes as in roi_conv.py."""

import math
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from aligncli.ops.backend import requested_backend
from aligncli.ops.offsets import kernel_pair
from aligncli.ops.roi_conv import roi_conv_levels


class RoIConv2d(nn.Module):
    """RoIConv in the place of a convolution: `nn.Conv2d`'s parameters, one output for each box.

    in_channels, out_channels, bias, device, dtype: as in nn.Conv2d, initialised alike. kernel_size: (kh, kw), or
    one number for both. stride: of the feature map, in pixels of the network input a cell; or a sequence of
    them, one a level, and the module then takes the levels of a pyramid, which share its weight.
    backend: auto or a member of BACKENDS (see `choose_backend`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: float | Sequence[float],
        bias: bool = True,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        pair = kernel_pair(kernel_size)
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(x, int) and x > 0 for x in pair):
            raise ValueError(f"RoIConv2d: kernel_size must be one side or (height, width), got {kernel_size}")
        self.kernel_size = pair
        self.strides = tuple(stride) if isinstance(stride, Sequence) else (stride,)
        if not self.strides or not all(one > 0 for one in self.strides):
            raise ValueError(f"RoIConv2d: stride must be positive pixels a cell, one or one a level, got {stride}")
        self.backend = backend
        requested_backend(backend)  # an unknown name should fail here
        weight = torch.empty(out_channels, in_channels, *self.kernel_size, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """nn.Conv2d's initialisation."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    @overload
    def forward(self, features: Tensor, boxes: Tensor) -> Tensor: ...

    @overload
    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]: ...

    def forward(self, features: Tensor | Sequence[Tensor], boxes: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """features: (N, C, H, W); boxes: dense, (N, H, W, 4), or (N, A, H, W, 4) for A a cell; xyxy pixels.

        Returns (N, O, H, W) or (N, A, O, H, W) with channels innermost in memory (channels_last). With a sequence
        of strides, features and boxes are sequences too, and so is the result.
        """
        if isinstance(features, Tensor) and isinstance(boxes, Tensor):
            (output,) = self._forward_levels([features], [boxes])
            return output
        if isinstance(features, Tensor) or isinstance(boxes, Tensor):
            raise ValueError("RoIConv2d: features and boxes must be both single or both sequences")
        return self._forward_levels(list(features), list(boxes))

    def _forward_levels(self, features: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        if len(features) != len(boxes):
            raise ValueError(f"RoIConv2d: {len(features)} levels of features and {len(boxes)} of boxes")
        flat_boxes = [_flatten_grid(grid, level) for grid, level in zip(boxes, features)]
        levels = roi_conv_levels(features, flat_boxes, self.weight, self.bias, self.strides, self.backend)
        return [_unflatten_grid(rows, level) for rows, level in zip(levels, boxes)]

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, strides={self.strides}, "
            f"bias={self.bias is not None}, backend={self.backend!r}"
        )


def _flatten_grid(boxes: Tensor, features: Tensor) -> Tensor:
    shape, wanted = boxes.shape, (features.shape[0], *features.shape[2:])
    if len(shape) not in (4, 5) or shape[-1] != 4 or (shape[0], *shape[-3:-1]) != wanted:
        size, height, width = wanted
        raise ValueError(
            f"RoIConv2d: boxes must be ({size}, {height}, {width}, 4) or ({size}, A, {height}, {width}, 4), "
            f"a box or A of them for each cell of the map, got {tuple(shape)}; roi_conv takes any number"
        )
    return boxes.flatten(1, -2)


def _unflatten_grid(rows: Tensor, boxes: Tensor) -> Tensor:
    """(N, R, O) -> (N, O, H, W) or (N, A, O, H, W), without a copy."""
    return rows.unflatten(1, boxes.shape[1:-1]).movedim(-1, -3)
