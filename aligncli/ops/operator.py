"""The operator `aligncli::roi_conv`: fake kernel, gradient, no double backward, FLOP formula.

Users call `aligncli.ops.roi_conv`, which checks its input; nothing is checked here. Shapes and frames as there.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from aligncli.ops import native, native_cuda, native_fused, portable
from aligncli.ops.backend import choose_backend

# Defined without torch.library.custom_op, whose checks take as long at every call as launching the kernels does.
torch.library.define(
    "aligncli::roi_conv",
    "(Tensor[] features, Tensor[] boxes, Tensor weight, Tensor? bias, float[] strides, str backend) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "aligncli::roi_conv_backward",
    "(Tensor grad, Tensor[] features, Tensor[] boxes, Tensor weight, float[] strides, bool[] needs, str backend)"
    " -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl("aligncli::roi_conv", "default")
def _forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
    backend: str,
) -> Tensor:
    """All levels' rows in one tensor (sum of N R_l, O), so that a backend can multiply across levels.

    backend: auto, native, fused or portable. Which one computes is decided here, out of a compiler's sight, as that may
    take building a library.
    """
    implementation = _implementation(backend, weight)
    with _without_autocast(weight.device.type):
        return implementation.forward(features, boxes, weight, bias, strides)


@torch.compiler.assume_constant_result  # torch 2.11's compiler cannot trace the question
def _has_autocast(device_type: str) -> bool:
    """Not every device has it, the meta device for one."""
    return torch.amp.is_autocast_available(device_type)


def autocast_is_on(device_type: str) -> bool:
    """Under torch.autocast for this device."""
    return _has_autocast(device_type) and torch.is_autocast_enabled(device_type)


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    return torch.autocast(device_type, enabled=False) if autocast_is_on(device_type) else nullcontext()


def _implementation(backend: str, weight: Tensor) -> ModuleType:
    match choose_backend(backend, device=weight.device, dtype=weight.dtype, out_channels=weight.shape[0]).name:
        case "native":
            return native_cuda if weight.is_cuda else native
        case "fused":
            return native_fused
        case _:
            return portable


@torch.library.register_fake("aligncli::roi_conv")
def _(
    _features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    _bias: Tensor | None,
    _strides: Sequence[float],
    _backend: str,
) -> Tensor:
    return weight.new_empty(sum(level.shape[0] * level.shape[1] for level in boxes), weight.shape[0])


@torch.library.impl("aligncli::roi_conv_backward", "default")
def _backward(
    grad: Tensor,
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    strides: Sequence[float],
    needs: Sequence[bool],
    backend: str,
) -> list[Tensor]:
    """`needs` has a flag for each features, each boxes and weight; returns those gradients, in that order."""
    implementation = _implementation(backend, weight)
    # Backward may run under an autocast that forward did not run under.
    with _without_autocast(weight.device.type):
        return implementation.backward(grad, features, boxes, weight, strides, needs)


@torch.library.register_fake("aligncli::roi_conv_backward")
def _(
    _grad: Tensor,
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    _strides: Sequence[float],
    needs: Sequence[bool],
    _backend: str,
) -> list[Tensor]:
    gradients = []
    for tensor, needed in zip([*features, *boxes, weight], needs, strict=True):
        if needed and tensor.dim() == 4:  # features and weight have channels-last gradients
            size, channels, height, width = tensor.shape
            gradients.append(tensor.new_empty(size, height, width, channels).permute(0, 3, 1, 2))
        elif needed:
            gradients.append(tensor.new_empty(tensor.shape))
    return gradients


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (passed by name)
    features, boxes, weight, _, strides, backend = inputs
    ctx.save_for_backward(*features, *boxes, weight)
    ctx.strides = strides
    ctx.backend = backend


def _roi_conv_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    num_levels = len(ctx.strides)
    *levels, weight = ctx.saved_tensors
    features, boxes = levels[:num_levels], levels[num_levels:]
    needs_features, needs_boxes, needs_weight, needs_bias, _, _ = ctx.needs_input_grad
    needs = [*needs_features, *needs_boxes, needs_weight]
    # A graph with the bias alone to train still gets here, and then there is nothing to gather.
    found = iter(
        roi_conv_backward_rows(grad, features, boxes, weight, ctx.strides, needs, ctx.backend) if any(needs) else []
    )
    gradients = [next(found) if needed else None for needed in needs]
    grad_bias = grad.sum(0) if needs_bias else None
    return gradients[:num_levels], gradients[num_levels:-1], gradients[-1], grad_bias, None, None


def _refuse_double_backward(_ctx: Any, *_grads: Any) -> None:
    raise RuntimeError("RoIConv has no double backward: differentiate it once, without create_graph=True")


roi_conv_rows = torch.ops.aligncli.roi_conv.default
roi_conv_backward_rows = torch.ops.aligncli.roi_conv_backward.default
torch.library.register_autograd("aligncli::roi_conv", _roi_conv_gradients, setup_context=_save_inputs)
torch.library.register_autograd("aligncli::roi_conv_backward", _refuse_double_backward)


@register_flop_formula(torch.ops.aligncli.roi_conv)
def _count_flops(_features: Any, boxes: Any, weight: Any, *_: Any, **__: Any) -> int:
    """The matrix product's, as for conv2d; gathering is not counted, as im2col is not."""
    return 2 * sum(num_images * num_rois for num_images, num_rois, _ in boxes) * math.prod(weight)


@register_flop_formula(torch.ops.aligncli.roi_conv_backward)
def _count_backward_flops(
    _grad: Any, features: Any, boxes: Any, weight: Any, _strides: Any, needs: Sequence[bool], *_: Any, **__: Any
) -> int:
    num_levels = len(boxes)
    flops = 0
    for level in range(num_levels):
        num_products = (needs[level] or needs[num_levels + level]) + needs[-1]
        flops += num_products * _count_flops(features, boxes[level : level + 1], weight)
    return flops
