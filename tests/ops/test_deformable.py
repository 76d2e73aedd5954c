"""Deformable convolution: torchvision's, conv2d where offsets are zero, RoIConv where they are equation 4's."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from aligncli.ops import DeformableConv2d, deformable_conv, roi_conv, roi_offsets


def inputs(kernel_size, *, dtype=torch.float64, size=(6, 9), std=0.0):
    generator = torch.Generator().manual_seed(0)
    num_offsets = 2 * kernel_size[0] * kernel_size[1]
    features = torch.randn(2, 3, *size, generator=generator)
    offsets = torch.randn(2, num_offsets, *size, generator=generator) * std
    weight = torch.randn(4, 3, *kernel_size, generator=generator)
    return [x.to(dtype) for x in (features, offsets, weight, torch.randn(4, generator=generator))]


def convolve(features, offsets, weight, bias=None, **settings):
    (output,) = deformable_conv([features], [offsets], weight, bias, **settings)
    return output


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (3, 5)])
def test_with_zero_offsets_it_is_conv2d(kernel_size):
    features, offsets, weight, bias = inputs(kernel_size)
    wanted = F.conv2d(features, weight, bias, padding=(kernel_size[0] // 2, kernel_size[1] // 2))
    assert torch.allclose(convolve(features, offsets, weight, bias), wanted)


@pytest.mark.parametrize("kernel_size", [(2, 2), (4, 3), (3, 2)])
def test_an_even_kernel_keeps_the_size_and_has_its_extra_tap_on_the_low_side(kernel_size):
    features, offsets, weight, bias = inputs(kernel_size)
    kernel_height, kernel_width = kernel_size
    top, left = kernel_height // 2, kernel_width // 2
    padded = F.pad(features, (left, kernel_width - 1 - left, top, kernel_height - 1 - top))
    assert torch.allclose(convolve(features, offsets, weight, bias), F.conv2d(padded, weight, bias))


@pytest.mark.parametrize("backend", ["auto", "portable"])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (1, 3), (5, 5)])
def test_values_and_all_gradients_are_torchvision_s_borders_included(kernel_size, backend):
    padding = (kernel_size[0] // 2, kernel_size[1] // 2)
    ours = [x.requires_grad_() for x in inputs(kernel_size, std=3.0)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    found = convolve(*ours, backend=backend)
    wanted = deform_conv2d(*theirs, padding=padding)
    assert torch.allclose(found, wanted, atol=1e-9)
    upstream = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(1))
    found.backward(upstream)
    wanted.backward(upstream)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad, other.grad, atol=1e-8)


@pytest.mark.parametrize("kernel_size", [(2, 2), (3, 3), (3, 4)])
def test_with_the_offsets_of_equation_4_it_is_roi_conv_borders_included(kernel_size):
    features, _, weight, bias = inputs(kernel_size)
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(2, 54, 2, generator=generator, dtype=torch.float64) * 80 - 20
    boxes = torch.cat([low, low + torch.rand(2, 54, 2, generator=generator, dtype=torch.float64) * 70], dim=-1)
    offsets = roi_offsets(boxes.unflatten(1, (6, 9)), kernel_size, 8)
    wanted = roi_conv(features, boxes, weight, bias, stride=8).transpose(1, 2).unflatten(2, (6, 9))
    assert torch.allclose(convolve(features, offsets, weight, bias), wanted, atol=1e-9)


def test_levels_that_share_the_weight_go_through_one_call_and_come_back_channels_last():
    torch.manual_seed(0)
    module = DeformableConv2d(3, 4, 3)
    assert 0.008 < module.weight.std() < 0.012
    levels = [inputs((3, 3), size=size, std=1.0, dtype=torch.float32)[:2] for size in ((6, 9), (3, 5), (1, 1))]
    together = module(*(list(part) for part in zip(*levels, strict=True)))
    for found, (features, offsets) in zip(together, levels, strict=True):
        assert torch.allclose(found, convolve(features, offsets, module.weight), atol=1e-6)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_offsets_of_a_diverged_model_read_zero_instead_of_crashing(value):
    """torchvision's operator reads outside its memory for NaN."""
    features, offsets, weight, bias = inputs((3, 3), dtype=torch.float32)
    offsets[:, :, 2, 3] = value
    found = convolve(features.requires_grad_(), offsets.requires_grad_(), weight, bias)
    found.sum().backward()
    assert torch.allclose(found[:, :, 2, 3], bias.expand(2, -1))
    assert torch.isfinite(found).all()
    assert torch.isfinite(features.grad).all()


def test_under_autocast_features_are_cast_and_offsets_are_not():
    _, _, weight, bias = inputs((3, 3), dtype=torch.float32)
    features, offsets = torch.arange(128.0).repeat(1, 3, 2, 1), torch.zeros(1, 18, 2, 128)
    offsets[:, 1::2] = 60.2  # 60.25 in bfloat16
    weight = weight.abs()  # no cancellation, which would show rounding alone
    wanted = convolve(features, offsets, weight, bias)[..., 2:60]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = convolve(features, offsets, weight, bias)
        rounded = convolve(features, offsets.bfloat16(), weight, bias)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found[..., 2:60].float(), wanted, rtol=0.02)
    assert not torch.equal(found, rounded)


def test_in_half_precision_it_rounds_as_little_as_a_convolution_does():
    """One rounding a tap, of a ninth of the sum; sums of taps that are rounded after each had twice this error."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 64, 24, 24, generator=generator).bfloat16()
    weight = (torch.randn(32, 64, 3, 3, generator=generator) / 24).bfloat16()
    offsets = torch.randn(1, 18, 24, 24, generator=generator) * 0.5
    found = convolve(features, offsets, weight)
    wanted = convolve(features.double(), offsets.double(), weight.double())
    assert found.dtype == torch.bfloat16
    error = (found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error < 0.0035
