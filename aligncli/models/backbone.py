"""Backbones: feature maps C2..C5 with strides 4, 8, 16, 32.

ResNets and ResNeXt-101-32x8d are torchvision's; `tiny_backbone` makes the small-scale stand-in (docs/results say
at which scale). Frozen as in section 5.1: stem and conv2_x, and all batch norms.
A backbone carries the pixel statistics that its weights expect: RGB in 0..1, minus mean, over std.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Self

import torch
import torchvision
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what torchvision's weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Stem and four stages, returning every stage's map.

    Args:
        stem, stages: modules; stage s (2..5) ends at stride 2**s.
        channels: output channels of the four stages.
        frozen_stages: how many of (stem, stage 2, ..., stage 5) do not train, nor move the statistics of their batch
            norms; 2 is the paper's choice.
        pixel_mean, pixel_std: of RGB in 0..1.
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        frozen_stages: int,
        pixel_mean: tuple[float, float, float] = IMAGENET_MEAN,
        pixel_std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.channels: dict[int, int] = dict(zip((2, 3, 4, 5), channels, strict=True))
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.last_level = 5
        self.frozen_stages = frozen_stages
        for part in self.frozen_parts():
            part.requires_grad_(False)
        self.train()

    def frozen_parts(self) -> list[nn.Module]:
        """The stem and the stages that do not train."""
        return [self.stem, *self.stages][: self.frozen_stages]

    def train(self, mode: bool = True) -> Self:
        """As every module, but for the batch norms of frozen parts: they stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen_parts():
            for norm in part.modules():
                if isinstance(norm, _BatchNorm):  # in 1d to 3d, and synchronised
                    norm.eval()
        return self

    def stop_at(self, level: int) -> nn.Sequential:
        """Compute no map coarser than `level`, and return the stages behind it, which a head may run on RoIs.

        They stay in here with their weights, under the names that pre-trained ones have.
        """
        self.last_level = level
        return nn.Sequential(*(stage for own, stage in zip(self.channels, self.stages, strict=True) if own > level))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images (N, 3, H, W) to {level: (N, C, H / 2**level, W / 2**level)} for levels 2..5.

        After `stop_at` the coarser ones are left out.
        """
        maps = {}
        x = self.stem(images)
        for level, stage in zip(self.channels, self.stages, strict=True):
            if level > self.last_level:
                break
            x = stage(x)
            maps[level] = x
        return maps


def resnet_backbone(
    name: str,
    *,
    frozen_stages: int,
    frozen_norm: bool,
    norm_epsilon: float = 1e-5,
    stride_in: Literal["3x3", "1x1"] = "3x3",
) -> Backbone:
    """torchvision's network of that name without its classifier, random weights.

    `stride_in`: which convolution of a stage's first bottleneck halves the map; MSRA's networks do it in the 1x1.
    """
    norm = partial(norm_layer(frozen_norm), eps=norm_epsilon)
    network: ResNet = getattr(torchvision.models, name)(weights=None, norm_layer=norm)
    layers = (network.layer1, network.layer2, network.layer3, network.layer4)
    for layer in layers:
        first = layer[0]
        if stride_in == "1x1" and isinstance(first, Bottleneck):
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
    return Backbone(
        stem=nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool),
        stages=layers,
        channels=[network.fc.in_features // 8 * 2**stage for stage in range(4)],
        frozen_stages=frozen_stages,
    )


def tiny_backbone(widths: Sequence[int], *, frozen_stages: int, frozen_norm: bool) -> Backbone:
    """One basic block a stage behind a 3x3 stride-2 stem: widths of stem and stages 2..5."""
    norm = norm_layer(frozen_norm)
    stem = nn.Sequential(
        nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False), norm(widths[0]), nn.ReLU(inplace=True)
    )
    stages = []
    for previous, width in pairwise(widths):
        shortcut = nn.Sequential(nn.Conv2d(previous, width, 1, stride=2, bias=False), norm(width))
        stages.append(BasicBlock(previous, width, stride=2, downsample=shortcut, norm_layer=norm))
    backbone = Backbone(stem=stem, stages=stages, channels=widths[1:], frozen_stages=frozen_stages)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


class FrozenNorm(FrozenBatchNorm2d):
    """torchvision's, over the output of a convolution in place: nothing else needs it, and fresh memory costs more.

    In mixed precision, where the result has another dtype, it is torchvision's unchanged.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W); overwrites it."""
        if x.dtype != self.weight.dtype:
            return super().forward(x)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        output = _ScaleInPlace.apply(x, scale[:, None, None], shift[:, None, None])
        assert isinstance(output, Tensor)
        return output


class _ScaleInPlace(torch.autograd.Function):
    """x * scale + shift, both constants of a channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, x, scale, out=x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (scale,) = ctx.saved_tensors
        return grad_outputs[0] * scale, None, None


def norm_layer(frozen: bool) -> type[nn.BatchNorm2d] | type[FrozenNorm]:
    """Batch norm, or one whose statistics and affine part are constants."""
    return FrozenNorm if frozen else nn.BatchNorm2d
