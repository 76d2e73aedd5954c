"""Convolutions that learn faster on a CPU: their weight's gradient by plain matrix products.

On processors with AVX2 and no AVX-512, oneDNN takes two to three times as long for the gradient of a channels-last
convolution's weight as for the convolution, and with a stride up to six times. With inputs and output gradients laid
on one grid of rows, padding included, a tap is a shift: each tap's gradient is one product of two views, and no columns
are copied.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PRODUCT_ROWS = 4096  # of one product, about: more images at a time only make copies for the grid larger
MIN_CHANNELS = 128  # of the input, from which on the products win; with 64 both take as long


class QuickGradientConv2d(nn.Conv2d):
    """`nn.Conv2d`, dense and padded with zeros, the same but for rounding in its weight's gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        is_plain = input.device.type == "cpu" and input.dtype == self.weight.dtype
        if not (learns and is_plain) or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        output = _QuickGradients.apply(input, self.weight, self.bias, self.padding, self.stride)
        assert isinstance(output, Tensor)
        return output


def quicken_gradients(model: nn.Module) -> None:
    """Turn the model's convolutions into such ones where that pays on this machine; names and weights stay."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return
    for module in model.modules():
        if type(module) is nn.Conv2d and _pays(module):
            module.__class__ = QuickGradientConv2d


def _pays(conv: nn.Conv2d) -> bool:
    is_dense = conv.dilation == (1, 1) and conv.groups == 1
    is_padded_with_zeros = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return is_dense and is_padded_with_zeros and conv.in_channels >= MIN_CHANNELS


class _QuickGradients(torch.autograd.Function):
    """Saves what a convolution saves: input and weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], stride: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.stride = padding, stride
        return F.conv2d(x, weight, bias, padding=padding, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,), (x, weight) = grad_outputs, ctx.saved_tensors
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_x = grad_weight = None
        if needs_x:
            place = (list(ctx.stride), list(ctx.padding), [1, 1], False, [0, 0], 1)  # dilation to groups
            grad_x, _, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *place, [True, False, False])
        if needs_weight:
            grad_weight = weight_gradient(x, grad, weight.shape[2:], ctx.padding, ctx.stride)
        return grad_x, grad_weight, grad.sum(dim=(0, 2, 3)) if needs_bias else None, None, None


def weight_gradient(
    x: Tensor, grad: Tensor, kernel_size: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Gradient (O, C, kh, kw) of a convolution's weight, channels-last in memory.

    Args:
        x: the input (N, C, H, W). grad: of the output, (N, O, (H + 2 ph - kh) // sh + 1, (W + 2 pw - kw) // sw + 1).
        kernel_size, padding, stride: (kh, kw), (ph, pw) and (sh, sw).
    """
    gradient = x.new_empty(grad.shape[1], *kernel_size, x.shape[1])
    if not grad.numel():
        return gradient.zero_().permute(0, 3, 1, 2)
    images = max(1, PRODUCT_ROWS // grad[0, 0].numel())
    for first, (own_x, own_grad) in enumerate(zip(x.split(images), grad.split(images), strict=True)):
        _add_weight_gradient(own_x, own_grad, padding, stride, gradient, is_first=first == 0)
    return gradient.permute(0, 3, 1, 2)


def _add_weight_gradient(
    x: Tensor,
    grad: Tensor,
    padding: tuple[int, int],
    stride: tuple[int, int],
    gradient: Tensor,
    *,
    is_first: bool,
) -> None:
    """Add the share of some images to the gradient (O, kh, kw, C), which holds nothing yet before the first.

    With a stride the input is taken apart into as many grids, each of every sh-th row and every sw-th column: on its
    own grid a tap is a shift again.
    """
    (height, width), (top, left), (step_y, step_x) = gradient.shape[1:3], padding, stride
    right, bottom = left + -(x.shape[3] + 2 * left) % step_x, top + -(x.shape[2] + 2 * top) % step_y
    padded = _pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom))
    rows, row = padded.shape[1] // step_y, padded.shape[2] // step_x  # of each grid
    # An output lies where its first tap reads, and zeros lie where there is no output.
    grads = grad.permute(0, 2, 3, 1)
    outputs = _pad(grads, (0, 0, 0, row - grads.shape[2], 0, rows - grads.shape[1])).flatten(0, 2)  # (M, O)
    count = len(outputs) - (height - 1) // step_y * row - (width - 1) // step_x  # what follows has no output
    for first_y in range(min(step_y, height)):
        for first_x in range(min(step_x, width)):
            inputs = padded[:, first_y::step_y, first_x::step_x].flatten(0, 2)  # (M, C)
            for tap_y in range(first_y, height, step_y):
                for tap_x in range(first_x, width, step_x):
                    shift = tap_y // step_y * row + tap_x // step_x
                    taps, tap = (outputs[:count].T, inputs[shift : shift + count]), gradient[:, tap_y, tap_x]
                    if is_first:
                        torch.mm(*taps, out=tap)
                    else:
                        tap.addmm_(*taps)


def _pad(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    return F.pad(x, sides) if any(sides) else x
