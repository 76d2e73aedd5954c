"""RetinaNet's two branches: convolution towers with predictors, shared by all levels, and what heads are made of.

Outputs are flattened a level to (N, H * W * A, K): row-major cells, then anchors, as in anchors.py.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from aligncli.errors import RecipeError

PRIOR_PROBABILITY = 0.01  # a fresh classifier says "1 % object", or the focal loss starts unstable


class Branches(nn.Module):
    """Class logits and box deltas of A anchors a cell.

    Args:
        num_convs, tower_channels, norm: of each tower; norm "group" is GroupNorm with 8 channels a group.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int,
        num_anchors: int,
        num_convs: int,
        tower_channels: int,
        norm: str,
    ) -> None:
        super().__init__()
        width = tower_channels if num_convs else in_channels
        self.num_classes = num_classes
        self.class_tower = conv_stack(in_channels, tower_channels, num_convs=num_convs, kernel_size=3, norm=norm)
        self.box_tower = conv_stack(in_channels, tower_channels, num_convs=num_convs, kernel_size=3, norm=norm)
        self.class_predictor = nn.Conv2d(width, num_anchors * num_classes, 3, padding=1)
        self.box_predictor = nn.Conv2d(width, num_anchors * 4, 3, padding=1)
        init_head(self, self.class_predictor)

    def classify(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (N, H * W * A, K), one tensor a level."""
        return [flatten_cells(self.class_predictor(self.class_tower(x)), self.num_classes) for x in features]

    def regress(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Box deltas (N, H * W * A, 4), one tensor a level."""
        return [flatten_cells(self.box_predictor(self.box_tower(x)), 4) for x in features]


def conv_stack(in_channels: int, channels: int, *, num_convs: int, kernel_size: int, norm: str) -> nn.Sequential:
    """`num_convs` times convolution, optional GroupNorm, ReLU; the identity when `num_convs` is 0."""
    layers: list[nn.Module] = []
    for _ in range(num_convs):
        layers.append(nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=norm == "none"))
        layers.extend(norm_and_activation(channels, norm))
        in_channels = channels
    return nn.Sequential(*layers)


def norm_and_activation(channels: int, norm: str, *, inplace: bool = True) -> list[nn.Module]:
    """ReLU, behind a GroupNorm with 8 channels a group where `norm` is "group"."""
    relu = nn.ReLU(inplace=inplace)
    return [group_norm(channels), relu] if norm == "group" else [relu]


def group_norm(channels: int) -> nn.GroupNorm:
    """8 channels a group; one group where there are fewer. Raises RecipeError where they cannot be grouped."""
    if channels > 8 and channels % 8:
        raise RecipeError(f"a group norm on {channels} channels: expected a multiple of 8, its channels a group")
    return nn.GroupNorm(max(1, channels // 8), channels)


def flatten_cells(x: Tensor, values: int) -> Tensor:
    """(N, A * values, H, W) to (N, H * W * A, values)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


def init_head(head: nn.Module, class_predictor: nn.Conv2d) -> None:
    """`init_gaussian`, and the prior for classes (section 5.1)."""
    init_gaussian(head)
    init_prior(class_predictor)


def init_prior(class_predictor: nn.Conv2d) -> None:
    """A bias that says PRIOR_PROBABILITY."""
    assert class_predictor.bias is not None
    nn.init.constant_(class_predictor.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))


def init_gaussian(head: nn.Module) -> None:
    """Gaussian with sigma .01 for the weights of convolutions, zero biases (section 5.1)."""
    for module in _convolutions(head):
        nn.init.normal_(module.weight, std=0.01)
        if isinstance(module.bias, nn.Parameter):
            nn.init.zeros_(module.bias)


def init_he(head: nn.Module) -> None:
    """He initialisation of the convolutions that a norm or a tower's ReLU follows; predictors keep what they have.

    Before a norm a convolution's scale has no effect but on how far a step turns it: sigma .01, a fourth of He's at
    these widths, makes an adaptive optimizer's first steps so large that a deep head learns late.
    """
    before_relu = {
        module
        for stack in head.modules()
        if isinstance(stack, nn.Sequential)
        for module, following in pairwise(stack)
        if isinstance(following, nn.ReLU)
    }
    for module in _convolutions(head):
        # Those that align are no nn.Conv2d, and all of them feed a norm or a ReLU
        if module.bias is None or module in before_relu or not isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def init_he_uniform(module: nn.Module) -> None:
    """He initialisation and zero biases, as for every layer between backbone and heads (section 5.1).

    With a = 1, the gain of a layer that no ReLU follows, as torchvision has it.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_uniform_(part.weight, a=1)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class OffsetPredictor(nn.Conv2d):
    """A 1x1 convolution to the offsets of a deformable one. It keeps this sigma, whatever its head is given."""

    def __init__(self, in_channels: int, num_offsets: int, *, std: float) -> None:
        super().__init__(in_channels, num_offsets, 1, bias=False)
        nn.init.normal_(self.weight, std=std)


def _convolutions(head: nn.Module) -> Iterator[Any]:
    """Modules with a 4-dimensional weight and a `bias`, None for those without; no offset predictors."""
    for module in head.modules():
        weight = getattr(module, "weight", None)
        is_convolution = isinstance(weight, nn.Parameter) and weight.dim() == 4 and hasattr(module, "bias")
        if is_convolution and not isinstance(module, OffsetPredictor):
            yield module
