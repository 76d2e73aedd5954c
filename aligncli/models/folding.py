"""Batch norms folded into the convolutions before them: what a detector is turned into before it detects.

In evaluation a batch norm is a constant scale and shift a channel, so the convolution's weight and bias can take
it over: the same numbers but for rounding, with two passes over every map less.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from aligncli.models.backbone import FrozenNorm
from aligncli.models.efficientnet_lite import SameConv2d
from aligncli.models.quick_gradients import QuickGradientConv2d

# A subclass that nobody here knows may do anything with its weight, such as normalise it.
CONVOLUTIONS = (nn.Conv2d, SameConv2d, QuickGradientConv2d)
NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d, FrozenNorm)


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, for inference alone, whose batch norms are in their convolutions' weights.

    Norms stay where nothing tells that a convolution feeds them and nothing else: outside of sequences and
    torchvision's residual blocks, and where a part is used in several places.
    """
    folded = copy.deepcopy(model).eval()
    for parent, conv_name, norm_name in list(_pairs(folded)):
        conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
        _fold(conv, norm)
        setattr(parent, norm_name, nn.Identity())
    return folded


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parents with the names of a convolution and of the norm right behind it, each used in one place."""
    uses: dict[nn.Module, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        uses[module] = uses.get(module, 0) + 1
    for parent in model.modules():
        for conv_name, norm_name in _neighbours(parent):
            conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
            if not (type(conv) in CONVOLUTIONS and type(norm) in NORMS and uses[conv] == uses[norm] == 1):
                continue
            if norm.running_mean is not None:  # else it takes the statistics of what it sees, in evaluation too
                yield parent, conv_name, norm_name


def _neighbours(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of children of which the second is called with what the first returns."""
    if type(parent) is nn.Sequential:
        yield from pairwise(name for name, _ in parent.named_children())
    elif isinstance(parent, BasicBlock | Bottleneck):
        names = dict(parent.named_children())
        yield from ((f"conv{i}", f"bn{i}") for i in (1, 2, 3) if f"conv{i}" in names)


def _fold(conv: Any, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
