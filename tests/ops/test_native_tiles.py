"""The CPU kernels that multiply for themselves: every kind of tile that this machine can run."""

import platform

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from aligncli.ops import native, native_tiles, roi_conv
from aligncli.ops.backend import missing_native
from tests.ops.test_portable import LargestTensor, problems

MISSING = missing_native(device="cpu", dtype=torch.float32)
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=f"no native kernels: {MISSING}"),
    pytest.mark.skipif(
        platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="no AVX2"
    ),
]


@pytest.fixture(params=[(torch.float32, 16), (torch.float32, 32), (torch.bfloat16, 64)], ids=str)
def dtype(request, monkeypatch):
    """Of the matrices; panels are of AVX2, which AVX-512 machines have too, of AVX-512, and of AVX512-BF16."""
    dtype, width = request.param
    if not serves(width, dtype):
        pytest.skip(f"no panels of {width} on this machine")
    monkeypatch.setattr(native_tiles, "panel_width", lambda like: width if like.dtype == dtype else 0)
    return dtype


def serves(width, dtype):
    """Whether panels of this width can be had here."""
    features, boxes, rows = torch.zeros(1, 1, 1, 2, dtype=dtype), torch.zeros(1, 0, 4), torch.zeros(0, 1, dtype=dtype)
    panels = torch.zeros(1, 1, 2 * dtype.itemsize // 4, width, dtype=dtype)
    try:
        torch.ops.aligncli_ext.multiply(features, boxes, 1, 1, 0, 1, 8.0, panels, None, False, rows)
    except RuntimeError as error:
        if "no panels of this width" not in str(error):
            raise
        return False
    return True


def test_this_machine_s_panels_can_be_had():
    for dtype in (torch.float32, torch.bfloat16):
        width = native_tiles.panel_width(torch.empty(0, dtype=dtype))
        assert width == 0 or serves(width, dtype)
    assert native_tiles.panel_width(torch.empty(0, dtype=torch.float64)) == 0


def compute(backend, features, boxes, weight, bias, stride, grad):
    """Rows, and the gradients of features and weight: boxes want none, as in AlignDet."""
    inputs = [features.detach().requires_grad_(), weight.detach().requires_grad_()]
    output = roi_conv(inputs[0], boxes, inputs[1], bias, stride=stride, backend=backend)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad.view(output.shape))]


def assert_right(dtype, features, boxes, weight, bias, stride, truth="portable"):
    """That `native` computes what is right for these values, rounded to the type."""
    grad = torch.arange(boxes.shape[0] * boxes.shape[1] * len(weight)) % 8 - 3.0
    values = [None if value is None else value.to(dtype) for value in (features, weight, bias, grad)]

    def with_values(backend, features, weight, bias, grad):
        return compute(backend, features, boxes, weight, bias, stride, grad)

    results = with_values("native", *values)
    assert [result.dtype for result in results] == [dtype] * 3
    exact = [None if value is None else value.float() for value in values]
    if dtype == torch.float32:
        assert_close(results, with_values(truth, *exact))
        return
    # A sample is rounded, and so is a sum: each by half of the last of eight digits of what it is at most.
    at_most = with_values(truth, *(None if value is None else value.abs() for value in exact))
    for result, expected, most in zip(results, with_values(truth, *exact), at_most, strict=True):
        assert ((result.float() - expected).abs() <= most * 2**-7 + 1e-30).all()


def assert_close(results, expected, tolerance=2e-5):
    for result, reference in zip(results, expected, strict=True):
        scale = reference.abs().max().item() if reference.numel() else 1.0
        assert result.isfinite().all()
        torch.testing.assert_close(result, reference, rtol=0, atol=tolerance * max(scale, 1.0))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(dtype=torch.float32))
def test_values_and_gradients_are_the_references(problem, dtype):
    assert_right(dtype, *problem, truth="reference")


@pytest.mark.parametrize("outputs", [1, 6, 16, 17, 37, 64, 600])  # 16 or 32 a panel; over 256 units are summed in parts
@pytest.mark.parametrize("channels", [16, 37, 600])
def test_matrices_that_fill_no_tile(outputs, channels, dtype, random_boxes):
    features, boxes = torch.randn(2, channels, 9, 8), random_boxes(2, 9, 8, 8).flatten(1, 2).float()
    assert_right(dtype, features, boxes, torch.randn(outputs, channels, 2, 3), torch.randn(outputs), 8)


def test_more_locations_than_are_packed_at_a_time(dtype, random_boxes):
    height, width = 40, 61  # 2,440: three blocks of 256 units are packed at a time
    boxes = random_boxes(1, height, width, 8).flatten(1, 2).float()
    assert_right(dtype, torch.randn(1, 16, height, width), boxes, torch.randn(256, 16, 3, 3) / 12, None, 8)


def test_results_do_not_depend_on_the_number_of_threads(dtype, num_threads, random_boxes):
    boxes = random_boxes(3, 20, 20, 8).flatten(1, 2).float()
    features, weight, bias = (torch.randn(*size).to(dtype) for size in ((3, 70, 20, 20), (19, 70, 3, 3), (19,)))
    grad = torch.randn(3 * 400, 19).to(dtype)
    results = []
    for threads in (1, 2, 3, 5):
        num_threads(threads)
        results.append(compute("native", features, boxes, weight, bias, 8, grad))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_kernel_rows_at_a_time_do_not_change_the_result(dtype, monkeypatch, random_boxes):
    levels = [(6, 7), (3, 4), (2, 1)]
    features = [torch.randn(2, 5, *size).to(dtype) for size in levels]
    boxes = [random_boxes(2, *size, 8).flatten(1, 2).float() for size in levels]
    weight, bias, grad = (torch.randn(*size).to(dtype) for size in ((4, 5, 3, 5), (4,), (2 * (42 + 12 + 2), 4)))
    strides, needs = [8.0, 16.0, 32.0], [True, False, True, False, False, False, True]

    def both():
        rows = native.forward(features, boxes, weight, bias, strides)
        return [rows, *native.backward(grad, features, boxes, weight, strides, needs)]

    whole = both()
    monkeypatch.setattr(native_tiles, "MATRIX_BYTES", 1)
    assert_close(both(), whole, tolerance=2e-5 if dtype == torch.float32 else 2**-8)


def test_without_box_gradients_no_columns_are_made(dtype, random_boxes):
    features, weight = torch.randn(1, 32, 40, 60).to(dtype), torch.randn(8, 32, 5, 5).to(dtype)
    boxes = random_boxes(1, 40, 60, 8).flatten(1, 2).float()
    with LargestTensor() as largest:
        rows = native.forward([features], [boxes], weight, None, [8.0])
        native.backward(torch.ones_like(rows), [features], [boxes], weight, [8.0], [True, False, True])
    assert largest.num_bytes == features.numel() * 4  # a sum of float; the columns would take 25 times that


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("count", [1, 2, 5])  # in bfloat16 an odd location's pair is a zero, which it must not touch
def test_what_is_not_finite_stays_where_it_is(value, count, dtype):
    features = torch.zeros(1, 33, 8, 8).index_fill(1, torch.tensor(32), value).to(dtype)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).expand(1, count, 4).contiguous()
    weight, grad = torch.ones(2, 33, 1, 1).to(dtype), torch.ones(count, 2).to(dtype)
    rows = native.forward([features], [boxes], weight, None, [8.0])
    assert not rows.isfinite().any()
    grad_map, grad_weight = native.backward(grad, [features], [boxes], weight, [8.0], [True, False, True])
    assert grad_map.isfinite().all()
    assert grad_weight[:, :32].isfinite().all()
    assert not grad_weight[:, 32].isfinite().any()


KERNEL = {"kernel_height": 3, "kernel_width": 3, "row_begin": 0, "row_end": 3, "stride": 8.0}
GOOD = {
    "multiply": {
        "features": torch.zeros(1, 4, 5, 6),
        "boxes": torch.zeros(1, 3, 4),
        **KERNEL,
        "panels": torch.zeros(9, 1, 6, 16),
        "bias": torch.zeros(2),
        "adds": False,
        "rows": torch.zeros(3, 2),
    },
    "spread": {
        "grad_rows": torch.zeros(3, 2),
        "boxes": torch.zeros(1, 3, 4),
        **KERNEL,
        "panels": torch.zeros(9, 1, 2, 16),
        "grad_map": torch.zeros(1, 4, 5, 6),
    },
    "collect": {
        "features": torch.zeros(1, 4, 5, 6),
        "boxes": torch.zeros(1, 3, 4),
        "grad_rows": torch.zeros(3, 2),
        "stride": 8.0,
        "width": 16,
        "grad_weight": torch.zeros(2, 3, 3, 6),
    },
}


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        ("multiply", {"features": torch.zeros(1, 5, 4, 6).transpose(1, 2)}, "the map must be a contiguous"),
        ("multiply", {"features": torch.zeros(1, 4, 5, 6).double()}, "tiles are of float32 and bfloat16"),
        ("multiply", {"boxes": torch.zeros(1, 3, 4).double()}, "boxes must be a contiguous"),
        ("multiply", {"rows": torch.zeros(4, 2)}, "no such locations"),
        ("multiply", {"rows": torch.zeros(3, 2).bfloat16()}, "in the type of the features"),
        ("multiply", {"panels": torch.zeros(9, 1, 6, 16).bfloat16()}, "in the type of the matrix"),
        ("multiply", {"features": torch.zeros(1, 4, 5, 6).bfloat16()}, "no panels of this width"),
        ("multiply", {"rows": torch.zeros(2, 3).T}, "rows must be contiguous"),
        ("multiply", {"rows": torch.zeros(3, 17)}, "panels must be"),
        ("multiply", {"panels": torch.zeros(6, 1, 6, 16)}, "panels must be"),
        ("multiply", {"panels": torch.zeros(9, 1, 96)}, "panels must be"),
        ("multiply", {"panels": torch.zeros(9, 1, 6, 8)}, "no panels of this width"),
        ("multiply", {"bias": torch.zeros(3)}, "a number for each output"),
        ("multiply", {"bias": torch.zeros(2).double()}, "the bias must be contiguous float32"),
        ("multiply", {"row_end": 4}, "no such kernel rows"),
        ("spread", {"grad_rows": torch.zeros(2, 2)}, "a row's gradient for each box"),
        ("spread", {"panels": torch.zeros(9, 2, 2, 16)}, "panels must be"),
        ("spread", {"panels": torch.zeros(9, 1, 3, 16)}, "panels must be"),
        ("spread", {"grad_map": torch.zeros(1, 4, 5, 6).double()}, "the map's gradient must be float32"),
        ("spread", {"panels": torch.zeros(9, 1, 2, 64)}, "no panels of this width"),
        ("collect", {"width": 0}, "no panels of this width"),
        ("collect", {"grad_rows": torch.zeros(4, 2)}, "no such locations"),
        ("collect", {"grad_weight": torch.zeros(2, 3, 3, 7)}, "the weight's gradient must be"),
        ("collect", {"grad_weight": torch.zeros(2, 3, 6, 3).transpose(2, 3)}, "contiguous float32"),
        ("collect", {"grad_rows": torch.zeros(3, 2).bfloat16()}, "in the type of the features"),
    ],
)
def test_kernels_refuse_what_would_read_beyond_their_arguments(kernel, changes, message):
    operator = getattr(torch.ops.aligncli_ext, kernel)
    operator(**GOOD[kernel])
    with pytest.raises(RuntimeError, match=message):
        operator(**(GOOD[kernel] | changes))
