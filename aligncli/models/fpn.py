"""Necks: a feature pyramid (Lin et al. 2017) with any levels, one level of it, or one stage as it is (Tables 1, 2).

Level l has stride 2**l. P6 is a 3x3 stride-2 convolution on C5 (or P5) and P7 one on relu(P6), as in RetinaNet;
in Faster R-CNN P6 is P5 at every other cell.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from aligncli.errors import RecipeError
from aligncli.models.branches import group_norm, init_he_uniform


class FeaturePyramid(nn.Module):
    """Lateral 1x1, nearest-neighbour top-down sum, 3x3 output.

    Args:
        in_channels: {level: channels} of the backbone's maps.
        channels: of every output map.
        levels: increasing and contiguous, for example (3, 4, 5, 6, 7), or one level such as (4,).
        top_down: whether coarser backbone stages are merged into finer levels.
        p6_from: "c5"; "p5", the pyramid's own, as in torchvision's first RetinaNet; or "pooled_p5", which is
            P5 at every other cell, without weights and the coarsest level possible, as in Faster R-CNN.
        norm: "group" puts a GroupNorm with 8 channels a group behind every convolution, so that maps have unit
            size whatever the backbone's have.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        *,
        channels: int,
        levels: Sequence[int],
        top_down: bool = True,
        p6_from: str = "c5",
        norm: str = "none",
    ) -> None:
        super().__init__()
        require_contiguous(levels)
        top = max(in_channels)
        if p6_from != "c5" and top not in levels:
            raise RecipeError(
                f"neck.p6_from is {p6_from}, and P{top} is not among neck.levels {tuple(levels)}: add it, or take c5"
            )
        if p6_from == "pooled_p5" and levels[-1] > top + 1:
            raise RecipeError(f"neck.p6_from is pooled_p5, which makes no level beyond P{top + 1}: take c5 or p5")
        self.top = top
        self.levels = tuple(levels)
        self.lateral_levels = range(levels[0], top + 1) if top_down else range(levels[0], min(levels[-1], top) + 1)
        self.top_down = top_down
        self.channels = channels
        self.p6_from = p6_from
        self.laterals = nn.ModuleDict(
            {str(level): _convolution(in_channels[level], channels, 1, norm=norm) for level in self.lateral_levels}
        )
        self.outputs = nn.ModuleDict(
            {str(level): _convolution(channels, channels, 3, norm=norm) for level in levels if level <= top}
        )
        self.extras = nn.ModuleDict()
        for level in range(top + 1, levels[-1] + 1):
            source = in_channels[top] if level == top + 1 and p6_from == "c5" else channels
            pooled = p6_from == "pooled_p5"
            self.extras[str(level)] = (
                nn.MaxPool2d(1, stride=2) if pooled else _convolution(source, channels, 3, stride=2, norm=norm)
            )
        init_he_uniform(self)

    @property
    def coarsest_input(self) -> int:
        """The coarsest of the backbone's maps that it reads."""
        return self.top if self.extras and self.p6_from == "c5" else max(self.lateral_levels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of each output map."""
        return tuple(2**level for level in self.levels)

    def forward(self, maps: Mapping[int, Tensor]) -> list[Tensor]:
        """{level: (N, C, H, W)} to one (N, channels, H, W) map for each of `levels`."""
        merged: dict[int, Tensor] = {}
        for level in reversed(self.lateral_levels):
            lateral = self.laterals[str(level)](maps[level])
            if self.top_down and level + 1 in merged:
                lateral = lateral + F.interpolate(merged[level + 1], size=lateral.shape[-2:], mode="nearest")
            merged[level] = lateral
        pyramid = {int(level): output(merged[int(level)]) for level, output in self.outputs.items()}
        coarsest = maps[self.coarsest_input] if self.p6_from == "c5" else pyramid[max(pyramid)]
        for level, convolution in self.extras.items():
            coarsest = convolution(coarsest)
            pyramid[int(level)] = coarsest
            coarsest = F.relu(coarsest)
        return [pyramid[level] for level in self.levels]


def require_contiguous(levels: Sequence[int]) -> None:
    """Raises RecipeError where a neck's levels leave one out."""
    if list(levels) != list(range(levels[0], levels[-1] + 1)):
        raise RecipeError(f"neck.levels is {tuple(levels)}: levels must be contiguous, for example (3, 4, 5)")


def _convolution(in_channels: int, channels: int, kernel_size: int, *, stride: int = 1, norm: str) -> nn.Module:
    """A convolution, alone (a plain module, whose weights keep the names of published files) or with a GroupNorm."""
    convolution = nn.Conv2d(
        in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=norm == "none"
    )
    return convolution if norm == "none" else nn.Sequential(convolution, group_norm(channels))


class BackboneStage(nn.Module):
    """No neck: one stage's map as it is (C4).

    Args:
        in_channels: {level: channels} of the backbone's maps. level: the stage, with stride 2**level.
    """

    def __init__(self, in_channels: Mapping[int, int], *, level: int) -> None:
        super().__init__()
        self.coarsest_input = level
        self.channels = in_channels[level]
        self.strides = (2**level,)

    def forward(self, maps: Mapping[int, Tensor]) -> list[Tensor]:
        """{level: (N, C, H, W)} to that one map, in a list as from a pyramid."""
        return [maps[self.coarsest_input]]
