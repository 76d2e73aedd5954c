"""RoIConv's identities (section 4), its contract with autograd and compilers, and the module."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d, roi_align

from aligncli.ops import RoIConv2d, implicit_rois, matmul, native_tiles, roi_conv, roi_offsets

STRIDE = 8.0
FAST_BACKENDS = ("native", "portable")  # fused, on CUDA alone, has test_native_fused.py
BACKENDS = (*FAST_BACKENDS, "reference")


def pad_as_convolution(features, kernel_height, kernel_width):
    """Same-size padding, the extra row and column of an even kernel on the low side."""
    left, top = kernel_width // 2, kernel_height // 2
    return F.pad(features, (left, kernel_width - 1 - left, top, kernel_height - 1 - top))


def to_map(rows, height, width):
    return rows.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def double(*shape, requires_grad=True):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad)


# ---------------------------------------------------------------- identities


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel_size", [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (2, 5), (4, 1)])
def test_roi_conv_on_implicit_rois_is_conv2d(kernel_size, backend):
    features, weight, bias = double(2, 5, 9, 11), double(4, 5, *kernel_size), double(4)
    rois = implicit_rois(9, 11, kernel_size, STRIDE, dtype=torch.float64).flatten(0, 1).expand(2, -1, -1)
    output = to_map(roi_conv(features, rois, weight, bias, stride=STRIDE, backend=backend), 9, 11)
    expected = F.conv2d(pad_as_convolution(features, *kernel_size), weight, bias)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)

    grad = torch.randn_like(expected)
    inputs = (features, weight, bias)
    gradients = torch.autograd.grad(output, inputs, grad)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, grad), rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_roi_conv_inside_the_map_is_roi_align_and_a_linear_layer(kernel_size, backend):
    height, width = 12, 16
    features, bias = double(2, 3, height, width), double(4)
    weight = double(4, 3, kernel_size, kernel_size)
    low = torch.rand(2, 50, 2, dtype=torch.float64) * torch.tensor([width - 3.0, height - 3.0]) + 0.5
    high = low + torch.rand(2, 50, 2, dtype=torch.float64) * (torch.tensor([width, height]) - 0.5 - low)
    boxes = torch.cat([low, high], dim=-1) * STRIDE
    output = roi_conv(features, boxes, weight, bias, stride=STRIDE, backend=backend)
    pooled = roi_align(features, list(boxes), kernel_size, 1 / STRIDE, sampling_ratio=1, aligned=True)
    expected = F.linear(pooled.flatten(1), weight.flatten(1), bias).unflatten(0, (2, 50))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel_size", [(1, 1), (2, 2), (3, 3), (7, 7), (3, 4)])
def test_roi_conv_everywhere_is_deform_conv2d_with_roi_offsets(kernel_size, backend, random_boxes):
    features, weight, bias = double(2, 3, 7, 9), double(4, 3, *kernel_size), double(4)
    boxes = random_boxes(2, 7, 9, STRIDE).requires_grad_()  # many reach outside
    output = to_map(roi_conv(features, boxes.flatten(1, 2), weight, bias, stride=STRIDE, backend=backend), 7, 9)
    padded = pad_as_convolution(features, *kernel_size)
    expected = deform_conv2d(padded, roi_offsets(boxes, kernel_size, STRIDE), weight, bias)
    # An offset beyond the padding still reads zeros, so padding first changes nothing.
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)

    grad = torch.randn_like(expected)
    inputs = (features, boxes, weight, bias)
    gradients = torch.autograd.grad(output, inputs, grad)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, grad), rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_box_gradient_on_cell_centres_is_the_one_of_deform_conv2d(backend):
    """Every tap of an implicit RoI is at a kink of the bilinear kernel, some at the map's border."""
    features, weight = double(1, 3, 5, 6), double(2, 3, 3, 3)
    rois = implicit_rois(5, 6, 3, STRIDE, dtype=torch.float64)[None].requires_grad_()
    output = to_map(roi_conv(features, rois.flatten(1, 2), weight, stride=STRIDE, backend=backend), 5, 6)
    expected = deform_conv2d(features, roi_offsets(rois, 3, STRIDE), weight, padding=1)
    (gradient,) = torch.autograd.grad(output.square().sum(), rois)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), rois)
    assert expected_gradient.abs().min() > 0
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_roi_conv_on_implicit_rois_is_conv2d_in_low_precision_too(dtype):
    """The weights are exactly 0 and 1 there, so only the order of the sums differs."""
    features, weight = torch.randn(1, 16, 10, 12, dtype=dtype), torch.randn(8, 16, 3, 3, dtype=dtype)
    rois = implicit_rois(10, 12, 3, 16).flatten(0, 1)[None]
    output = to_map(roi_conv(features, rois, weight, stride=16), 10, 12)
    torch.testing.assert_close(output, F.conv2d(features, weight, padding=1), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_several_levels_in_one_call_are_separate_calls(random_boxes, backend):
    strides = (8, 16.0, 32)
    features = [double(2, 3, 6, 7), double(2, 3, 3, 4), double(2, 3, 2, 1)]
    boxes = [random_boxes(2, *level.shape[2:], stride).flatten(1, 2) for level, stride in zip(features, strides)]
    boxes[1] = boxes[1][:, :5].requires_grad_()
    weight, bias = double(4, 3, 3, 3), double(4)
    together = roi_conv(features, boxes, weight, bias, stride=strides, backend=backend)
    apart = [roi_conv(f, b, weight, bias, stride=s, backend=backend) for f, b, s in zip(features, boxes, strides)]
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    inputs = (*features, boxes[1], weight, bias)
    gradients = torch.autograd.grad(sum(level.square().sum() for level in together), inputs)
    expected = torch.autograd.grad(sum(level.square().sum() for level in apart), inputs)
    torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-10)


# ---------------------------------------------------------------- autograd, compilers, counters


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_gradcheck_of_features_boxes_weight_and_bias(backend):
    features, weight, bias = double(2, 2, 4, 3), double(2, 2, 2, 3), double(2)
    boxes = (torch.rand(2, 4, 4, dtype=torch.float64) * 50 - 5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *inputs: roi_conv(*inputs, stride=STRIDE, backend=backend), (features, boxes, weight, bias)
    )


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("needed", ["features", "boxes", "weight", "bias"])
def test_each_gradient_alone_is_the_one_among_all(needed, backend):
    inputs = {
        "features": double(1, 3, 5, 6),
        "boxes": (torch.rand(1, 7, 4, dtype=torch.float64) * 50).requires_grad_(),
        "weight": double(4, 3, 3, 3),
        "bias": double(4),
    }
    everything = torch.autograd.grad(
        roi_conv(**inputs, stride=STRIDE, backend=backend).square().sum(), list(inputs.values())
    )
    alone = {name: value.detach().requires_grad_(name == needed) for name, value in inputs.items()}
    roi_conv(**alone, stride=STRIDE, backend=backend).square().sum().backward()
    for (name, value), expected in zip(alone.items(), everything):
        if name == needed:
            torch.testing.assert_close(value.grad, expected, rtol=0, atol=1e-12)
        else:
            assert value.grad is None


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_differentiating_twice_is_refused(backend):
    features, weight = double(1, 2, 4, 4), double(2, 2, 3, 3)
    boxes = torch.rand(1, 3, 4, dtype=torch.float64) * 30
    output = roi_conv(features, boxes, weight, stride=STRIDE, backend=backend)
    (gradient,) = torch.autograd.grad(output.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="RoIConv has no double backward"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", ["native", "portable"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_operators_pass_opcheck(requires_grad, backend):
    features = [torch.randn(2, 3, 5, 6), torch.randn(2, 3, 3, 1).to(memory_format=torch.channels_last)]
    boxes = [torch.rand(2, 4, 4) * 40, torch.rand(2, 0, 4)]
    weight, bias = torch.randn(4, 3, 2, 3), torch.randn(4)
    grad, needs = torch.randn(8, 4), [True, False, True, True, True]
    torch.library.opcheck(
        torch.ops.aligncli.roi_conv_backward.default, (grad, features, boxes, weight, [8.0, 16.0], needs, backend)
    )
    for tensor in (*features, *boxes, weight, bias):
        tensor.requires_grad_(requires_grad)
    torch.library.opcheck(torch.ops.aligncli.roi_conv.default, (features, boxes, weight, bias, [8.0, 16.0], backend))
    torch.library.opcheck(torch.ops.aligncli.roi_conv.default, (features[:1], boxes[:1], weight, None, [8.0], backend))


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("sizes", [[(6, 7)], [(6, 7), (3, 4)]])
def test_a_module_with_roi_conv_compiles_into_one_graph(sizes, backend, random_boxes):
    strides = [8.0 * 2**level for level in range(len(sizes))]

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.align = RoIConv2d(3, 4, 3, stride=strides, backend=backend)

        def forward(self, features, boxes):
            return [F.relu(level) for level in self.align(features, boxes)]

    head = Head()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    for num_images in (2, 3):  # the second time with a dynamic batch
        features = [torch.randn(num_images, 3, *size, requires_grad=True) for size in sizes]
        boxes = [random_boxes(num_images, *size, stride).float() for size, stride in zip(sizes, strides)]
        inputs = (*features, *head.parameters())
        expected, outputs = head(features, boxes), compiled(features, boxes)
        torch.testing.assert_close(outputs, expected)
        gradients = torch.autograd.grad(sum(level.square().sum() for level in outputs), inputs)
        expected_gradients = torch.autograd.grad(sum(level.square().sum() for level in expected), inputs)
        torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.slow
def test_a_module_with_roi_conv_compiles_with_inductor(random_boxes):
    module = RoIConv2d(3, 4, 3, stride=8)
    features, boxes = torch.randn(2, 3, 6, 7), random_boxes(2, 6, 7, 8).float()
    torch.testing.assert_close(torch.compile(module, fullgraph=True)(features, boxes), module(features, boxes))


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_a_module_with_roi_conv_is_exported(backend, random_boxes):
    module = RoIConv2d(3, 4, 3, stride=8, backend=backend)
    features, boxes = torch.randn(2, 3, 6, 7), random_boxes(2, 6, 7, 8).float()
    images = torch.export.Dim("images", min=1)
    exported = torch.export.export(
        module, (features, boxes), dynamic_shapes={"features": {0: images}, "boxes": {0: images}}
    )
    for num_images in (2, 5):
        inputs = features[:1].repeat(num_images, 1, 1, 1), boxes[:1].repeat(num_images, 1, 1, 1)
        torch.testing.assert_close(exported.module()(*inputs), module(*inputs), rtol=0, atol=0)


def test_flops_are_those_of_conv2d():
    features, weight = torch.randn(2, 3, 6, 7, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    boxes = implicit_rois(6, 7, 3, 8).flatten(0, 1).expand(2, -1, -1)

    def count(compute):
        with FlopCounterMode(display=False) as forward:
            output = compute()
        with FlopCounterMode(display=False) as backward:
            output.sum().backward()
        return forward.get_total_flops(), backward.get_total_flops()

    assert count(lambda: roi_conv(features, boxes, weight, stride=8)) == count(
        lambda: F.conv2d(features, weight, padding=1)
    )
    forward, backward = count(lambda: roi_conv(features.detach(), boxes, weight, stride=8))
    assert backward == forward == 2 * (2 * 6 * 7) * (4 * 3 * 9)


def test_shapes_and_flops_are_known_on_the_meta_device():
    module = RoIConv2d(3, 4, 3, stride=8, device="meta")
    with FlopCounterMode(display=False) as counter:
        output = module(torch.empty(2, 3, 5, 6, device="meta"), torch.empty(2, 5, 6, 4, device="meta"))
    assert output.shape == (2, 4, 5, 6)
    assert counter.get_total_flops() == 2 * (2 * 5 * 6) * (4 * 3 * 9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_features_and_weight_but_not_boxes(dtype, random_boxes):
    module = RoIConv2d(8, 4, 3, stride=8)
    features = torch.randn(1, 8, 6, 7, requires_grad=True)
    # An offset of 4096 pixels leaves half types without a fraction: 4097.3 would be 4096 in bfloat16.
    boxes = random_boxes(1, 6, 7, 8).float().flatten(1, 2) + torch.tensor([4096.0, 0, 4096, 0])
    wide = F.pad(features, (512, 0))
    with torch.autocast("cpu", dtype=dtype):
        output = roi_conv(wide, boxes, module.weight, module.bias, stride=8)
    assert output.dtype == dtype
    expected = roi_conv(wide, boxes, module.weight, module.bias, stride=8)
    torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)
    output.float().square().sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == module.weight.grad.dtype == torch.float32


def test_autocast_leaves_float64_alone():
    weight = double(2, 3, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert roi_conv(double(1, 3, 4, 4), torch.rand(1, 2, 4), weight, stride=8).dtype == torch.float64


@pytest.mark.parametrize(
    ("features", "weight"),
    [(torch.float64, torch.float32), (torch.float32, torch.float64), (torch.int64, torch.float32)],
)
def test_autocast_hides_no_types_that_do_not_fit(features, weight):
    x, w = torch.ones(1, 3, 4, 4, dtype=features), torch.ones(2, 3, 3, 3, dtype=weight)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(ValueError, match=f"features are {features} and weight is {weight}"),
    ):
        roi_conv(x, torch.rand(1, 2, 4), w, stride=8)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_backward_under_an_autocast_that_forward_did_not_see(monkeypatch, backend):
    monkeypatch.setattr(matmul, "onednn_serves", lambda _: False)  # autocast would change BLAS' products
    monkeypatch.setattr(native_tiles, "tiles_serve", lambda _: False)  # which multiply themselves
    features, weight = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)
    output = roi_conv(features, torch.rand(1, 5, 4) * 30, weight, stride=8, backend=backend)
    expected = torch.autograd.grad(output.sum(), (features, weight), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients = torch.autograd.grad(output.sum(), (features, weight))
    assert all(torch.equal(*pair) for pair in zip(gradients, expected))


# ---------------------------------------------------------------- arguments that do not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(3, 5, 5)}, r"features must be \(N, C, H, W\).*got \(3, 5, 5\)"),
        ({"features": torch.zeros(1, 3, 0, 5)}, "only N may be 0"),
        ({"features": torch.zeros(1, 2, 5, 5)}, "features have 2 channels and weight takes 3"),
        ({"features": torch.zeros(1, 3, 5, 5).bfloat16()}, "features are torch.bfloat16 and weight is torch.float32"),
        ({"boxes": torch.zeros(1, 5, 5, 4)}, r"boxes must be \(1, R, 4\), got \(1, 5, 5, 4\)"),
        ({"boxes": torch.zeros(2, 6, 4)}, r"boxes must be \(1, R, 4\), got \(2, 6, 4\)"),
        ({"boxes": torch.zeros(1, 6, 4, dtype=torch.int64)}, "boxes must be floating point, got torch.int64"),
        ({"weight": torch.zeros(2, 3, 3)}, r"weight must be \(O, C, kh, kw\).*got \(2, 3, 3\)"),
        (
            {"weight": torch.zeros(2, 3, 3, 3, dtype=torch.int64)},
            "weight must be float64.* or float16, got torch.int64",
        ),
        ({"weight": torch.zeros(2, 3, 3, 3).to(torch.float8_e4m3fn)}, "or float16, got torch.float8_e4m3fn"),
        ({"weight": None}, "must be tensors"),
        ({"bias": torch.zeros(3)}, r"bias must be \(2,\) in weight's torch.float32, got \(3,\)"),
        ({"bias": torch.zeros(2).double()}, "in torch.float64"),
        ({"bias": torch.zeros(2, device="meta")}, "bias is on meta and weight on cpu"),
        ({"boxes": torch.zeros(1, 6, 4, device="meta")}, "features are on cpu, boxes on meta and weight on cpu"),
        ({"features": torch.zeros(1, 3, 5, 5, device="meta")}, "features are on meta, boxes on cpu"),
        ({"stride": 0}, "stride must be positive pixels a cell, got 0"),
        ({"stride": (8, 16)}, "all single or all sequences"),
        ({"features": [torch.zeros(1, 3, 5, 5)]}, "all single or all sequences"),
        (
            {"features": [torch.zeros(1, 3, 5, 5)], "boxes": [], "stride": [8]},
            "equally long and not empty, got 1, 0 and 1",
        ),
        ({"features": [], "boxes": [], "stride": []}, "equally long and not empty, got 0, 0 and 0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes, message):
    arguments = {
        "features": torch.zeros(1, 3, 5, 5),
        "boxes": torch.zeros(1, 6, 4),
        "weight": torch.zeros(2, 3, 3, 3),
        "bias": None,
        "stride": 8,
    }
    with pytest.raises(ValueError, match=message):
        roi_conv(**(arguments | changes))


# ---------------------------------------------------------------- the module


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_forward_mode_derivatives_are_refused_not_taken_for_zero(backend):
    x, boxes, weight = torch.randn(1, 3, 5, 5), torch.rand(1, 4, 4) * 30, torch.randn(2, 3, 3, 3)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(lambda y: roi_conv(y, boxes, weight, stride=8, backend=backend), (x,), (x,))
    output, tangent = torch.func.jvp(lambda y: roi_conv(y, boxes, weight, stride=8, backend="reference"), (x,), (x,))
    assert torch.equal(output, tangent)
    with forward_ad.dual_level():
        roi_conv(x, boxes, weight, stride=8, backend=backend)  # nothing that it reads has a tangent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be"),
        ({"kernel_size": 3.0}, "kernel_size must be"),
        ({"kernel_size": (3,)}, "kernel_size must be"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be"),
        ({"stride": 0}, "stride must be positive"),
        ({"stride": -8.0}, "stride must be positive"),
        ({"stride": ()}, "stride must be positive"),
    ],
)
def test_module_refuses_what_it_could_not_compute(arguments, message):
    with pytest.raises(ValueError, match=message):
        RoIConv2d(3, 4, **{"kernel_size": 3, "stride": 8} | arguments)


@pytest.mark.parametrize("shape", [(1, 6, 5, 4), (5, 6, 4), (2, 5, 6, 4), (1, 30, 4), (1, 5, 6, 5)])
def test_module_refuses_boxes_of_another_grid_than_the_map_s(shape):
    """Height and width in the wrong order, above all."""
    with pytest.raises(ValueError, match=r"boxes must be \(1, 5, 6, 4\) or \(1, A, 5, 6, 4\)"):
        RoIConv2d(3, 4, 3, stride=8)(torch.zeros(1, 3, 5, 6), torch.zeros(shape))


def test_module_refuses_levels_without_boxes():
    module = RoIConv2d(3, 4, 3, stride=(8, 16))
    maps, boxes = [torch.zeros(1, 3, 2, 2)] * 2, [torch.zeros(1, 2, 2, 4)] * 3
    with pytest.raises(ValueError, match="2 levels of features and 3 of boxes"):
        module(maps, boxes)


def test_module_starts_as_conv2d_and_takes_its_weights():
    torch.manual_seed(3)
    convolution = nn.Conv2d(5, 4, 3, padding=1)
    torch.manual_seed(3)
    module = RoIConv2d(5, 4, 3, stride=STRIDE)
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), convolution.parameters(), strict=True))
    module.load_state_dict(convolution.state_dict())
    assert RoIConv2d(5, 4, 3, stride=STRIDE, bias=False).bias is None


def test_module_on_dense_boxes_returns_a_channels_last_map_without_a_copy():
    module = RoIConv2d(5, 4, 3, stride=STRIDE)
    features = torch.randn(2, 5, 6, 7)
    boxes = implicit_rois(6, 7, 3, STRIDE).expand(2, -1, -1, -1)
    output = module(features, boxes)
    assert output.shape == (2, 4, 6, 7)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert output._base is not None  # a view of the rows
    torch.testing.assert_close(output, F.conv2d(features, module.weight, module.bias, padding=1))


def test_module_with_several_boxes_a_cell_is_the_module_on_each():
    module = RoIConv2d(5, 4, (3, 2), stride=STRIDE)
    features, boxes = torch.randn(2, 5, 6, 7), torch.rand(2, 3, 6, 7, 4) * 50
    output = module(features, boxes)
    assert output.shape == (2, 3, 4, 6, 7)
    for anchor in range(3):
        torch.testing.assert_close(output[:, anchor], module(features, boxes[:, anchor]))


def test_module_over_a_pyramid_shares_its_weight(random_boxes):
    strides = (8, 16)
    features = [torch.randn(2, 5, 6, 7), torch.randn(2, 5, 3, 4)]
    boxes = [random_boxes(2, 6, 7, 8).float(), random_boxes(2, 3, 4, 16).float()]
    module = RoIConv2d(5, 4, 3, stride=strides)
    outputs = module(features, boxes)
    for level, stride in enumerate(strides):
        single = RoIConv2d(5, 4, 3, stride=stride)
        single.load_state_dict(module.state_dict())
        torch.testing.assert_close(outputs[level], single(features[level], boxes[level]))


def test_module_output_of_one_level_may_be_changed_in_place():
    module = RoIConv2d(2, 3, 3, stride=8)
    features, boxes = torch.randn(1, 2, 4, 4), implicit_rois(4, 4, 3, 8)[None]
    F.relu(module(features, boxes)).sum().backward()
    expected, module.weight.grad = module.weight.grad, None
    F.relu_(module(features, boxes)).sum().backward()
    assert torch.equal(module.weight.grad, expected)


def test_module_refuses_sparse_boxes_and_mixed_levels():
    module = RoIConv2d(3, 4, 3, stride=8)
    with pytest.raises(ValueError, match=r"a box or A of them for each cell of the map, got \(1, 6, 4\)"):
        module(torch.zeros(1, 3, 5, 5), torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match="both single or both sequences"):
        module(torch.zeros(1, 3, 5, 5), [torch.zeros(1, 5, 5, 4)])
    with pytest.raises(ValueError, match="equally long and not empty, got 2, 2 and 1"):
        module([torch.zeros(1, 3, 5, 5)] * 2, [torch.zeros(1, 5, 5, 4)] * 2)
