"""Quick gradients are conv2d's: same outputs, same gradients, in the places where they are promised to be quick."""

import pytest
import torch
from torch import nn

from aligncli.build import build_model
from aligncli.catalog import load_recipe
from aligncli.models.quick_gradients import MIN_CHANNELS, QuickGradientConv2d, quicken_gradients


def twins(*sizes, dtype=torch.float64, **options):
    """A convolution of torch's, and a quick one with its weights."""
    torch.manual_seed(0)
    plain = nn.Conv2d(*sizes, **options).to(dtype).to(memory_format=torch.channels_last)
    quick = QuickGradientConv2d(*sizes, **options).to(dtype).to(memory_format=torch.channels_last)
    quick.load_state_dict(plain.state_dict())
    return plain, quick


def gradients(conv, x, cotangent):
    x = x.detach().requires_grad_()
    output = conv(x)
    return output, torch.autograd.grad((output * cotangent).sum(), [x, *conv.parameters()])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), (2, 4)])
@pytest.mark.parametrize(
    ("kernel_size", "padding", "size"),
    [
        (3, 1, (6, 9)),
        (3, 0, (5, 4)),
        ((1, 3), (0, 1), (4, 3)),
        ((5, 2), (2, 0), (7, 5)),
        (3, 2, (1, 1)),
        (2, 1, (3, 3)),
        (1, 0, (6, 5)),
        (3, 1, (8, 8)),
    ],
)
def test_outputs_and_gradients_are_conv2d_s(kernel_size, padding, size, stride, bias, layout):
    plain, quick = twins(3, 4, kernel_size, padding=padding, stride=stride, bias=bias)
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=layout)
    cotangent = torch.randn_like(plain(x))
    wanted_output, wanted = gradients(plain, x, cotangent)
    output, found = gradients(quick, x, cotangent)
    assert torch.equal(output, wanted_output)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradcheck_of_input_weight_and_bias():
    _, quick = twins(2, 3, 3, padding=1)
    names = ("weight", "bias")
    values = [getattr(quick, name).detach().requires_grad_() for name in names]

    def call(x, *values):
        return torch.func.functional_call(quick, dict(zip(names, values)), x)

    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, *values))


def test_a_convolution_keeps_its_input_and_weight_for_backward_and_nothing_else():
    _, quick = twins(3, 4, 3, padding=1, dtype=torch.float32)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: saved.append(kept) or kept, lambda kept: kept):
        quick(x)
    assert [tuple(kept.shape) for kept in saved] == [tuple(x.shape), tuple(quick.weight.shape)]


def test_under_autocast_and_without_gradients_it_is_conv2d():
    plain, quick = twins(3, 4, 3, padding=1, dtype=torch.float32)
    x = torch.randn(1, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quick(x), plain(x))
        assert quick(x).dtype == torch.bfloat16
    with torch.no_grad():
        assert not quick(x).requires_grad
    assert not quick.requires_grad_(False)(x).requires_grad


def test_on_avx2_the_wide_dense_convolutions_of_a_detector_are_quick(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with torch.device("meta"):
        model = build_model(load_recipe("retinanet_r50"), num_classes=3)
    for conv in (module for module in model.modules() if isinstance(module, nn.Conv2d)):
        wide = conv.in_channels >= MIN_CHANNELS
        assert (type(conv) is QuickGradientConv2d) == wide


def test_elsewhere_and_for_other_convolutions_nothing_changes(monkeypatch):
    model = nn.Sequential(
        nn.Conv2d(MIN_CHANNELS, 8, 3, dilation=2),
        nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, groups=2),
        nn.Conv2d(MIN_CHANNELS, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(MIN_CHANNELS, 8, 3, padding="same"),
        nn.Conv2d(MIN_CHANNELS // 2, 8, 3),
    )
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    quicken_gradients(model)
    assert all(type(conv) is nn.Conv2d for conv in model)
    wide = nn.Sequential(nn.Conv2d(MIN_CHANNELS, 8, 3))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    quicken_gradients(wide)
    assert type(wide[0]) is nn.Conv2d


def test_no_images_have_gradients_of_zero():
    plain, quick = twins(3, 4, 3, padding=1, stride=2)
    x = torch.randn(0, 3, 6, 9, dtype=torch.float64)
    wanted_output, wanted = gradients(plain, x, torch.ones(1, dtype=torch.float64))
    output, found = gradients(quick, x, torch.ones(1, dtype=torch.float64))
    assert output.shape == wanted_output.shape
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)
