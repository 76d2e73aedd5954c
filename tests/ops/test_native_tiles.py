"""The CPU kernels that multiply for themselves, on any machine that can run them, whichever way it would take."""

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


@pytest.fixture(autouse=True, params=[16, 32])
def panel(request, monkeypatch):
    """Of AVX2, which AVX-512 machines have too, and of AVX-512."""
    if request.param == 32 and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("no AVX-512")
    monkeypatch.setattr(native_tiles, "PANELS", {torch.backends.cpu.get_cpu_capability(): request.param})
    return request.param


def compute(backend, features, boxes, weight, bias, stride):
    """Rows, and the gradients of features and weight: boxes want none, as in AlignDet."""
    inputs = [features.detach().requires_grad_(), weight.detach().requires_grad_()]
    output = roi_conv(inputs[0], boxes, inputs[1], bias, stride=stride, backend=backend)
    grad = (torch.arange(output.numel()) % 8 - 3).to(output.dtype).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad)]


def assert_close(results, expected):
    for result, reference in zip(results, expected, strict=True):
        scale = reference.abs().max().item() if reference.numel() else 1.0
        assert result.isfinite().all()
        torch.testing.assert_close(result, reference, rtol=0, atol=2e-5 * max(scale, 1.0))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(dtype=torch.float32))
def test_values_and_gradients_are_the_references(problem):
    assert_close(compute("native", *problem), compute("reference", *problem))


@pytest.mark.parametrize("outputs", [1, 6, 16, 17, 37, 64, 300])  # 16 or 32 a panel; over 256 are summed in two parts
@pytest.mark.parametrize("channels", [16, 37, 300])
def test_matrices_that_fill_no_tile(outputs, channels, random_boxes):
    problem = (
        torch.randn(2, channels, 9, 8),
        random_boxes(2, 9, 8, 8).flatten(1, 2).float(),
        torch.randn(outputs, channels, 2, 3) / (6 * channels) ** 0.5,
        torch.randn(outputs),
        8,
    )
    assert_close(compute("native", *problem), compute("portable", *problem))


def test_more_locations_than_are_packed_at_a_time(random_boxes):
    size = (1, 40, 60)  # 2,400: of 256 outputs 1,024 are packed, of which 256 are multiplied at a time
    problem = (torch.randn(1, 16, 40, 60), random_boxes(*size, 8).flatten(1, 2).float())
    weight = torch.randn(256, 16, 3, 3) / 12
    results = compute("native", *problem, weight, None, 8)
    assert_close(results, compute("portable", *problem, weight, None, 8))


def test_results_do_not_depend_on_the_number_of_threads(num_threads, random_boxes):
    boxes = random_boxes(3, 20, 20, 8).flatten(1, 2).float()
    problem = (torch.randn(3, 70, 20, 20), boxes, torch.randn(19, 70, 3, 3), torch.randn(19), 8)
    results = []
    for threads in (1, 2, 3, 5):
        num_threads(threads)
        results.append(compute("native", *problem))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_kernel_rows_at_a_time_do_not_change_the_result(monkeypatch, random_boxes):
    levels = [(6, 7), (3, 4), (2, 1)]
    features = [torch.randn(2, 5, *size) for size in levels]
    boxes = [random_boxes(2, *size, 8).flatten(1, 2).float() for size in levels]
    weight, bias, grad = torch.randn(4, 5, 3, 5), torch.randn(4), torch.randn(2 * (42 + 12 + 2), 4)
    strides, needs = [8.0, 16.0, 32.0], [True, False, True, False, False, False, True]

    def both():
        rows = native.forward(features, boxes, weight, bias, strides)
        return [rows, *native.backward(grad, features, boxes, weight, strides, needs)]

    whole = both()
    monkeypatch.setattr(native_tiles, "MATRIX_BYTES", 1)
    assert_close(both(), whole)


def test_without_box_gradients_no_columns_are_made(random_boxes):
    features, weight = torch.randn(1, 32, 40, 60), torch.randn(8, 32, 5, 5)
    boxes = random_boxes(1, 40, 60, 8).flatten(1, 2).float()
    with LargestTensor() as largest:
        rows = native.forward([features], [boxes], weight, None, [8.0])
        native.backward(torch.ones_like(rows), [features], [boxes], weight, [8.0], [True, False, True])
    assert largest.num_bytes == features.numel() * 4  # the columns would take 25 times that


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
        "panel": 16,
        "grad_weight": torch.zeros(2, 3, 3, 6),
    },
}


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        ("multiply", {"features": torch.zeros(1, 5, 4, 6).transpose(1, 2)}, "the map must be a contiguous"),
        ("multiply", {"features": torch.zeros(1, 4, 5, 6).double()}, "the map must be float32"),
        ("multiply", {"boxes": torch.zeros(1, 3, 4).double()}, "boxes must be a contiguous"),
        ("multiply", {"rows": torch.zeros(4, 2)}, "no such locations"),
        ("multiply", {"rows": torch.zeros(2, 3).T}, "rows must be contiguous"),
        ("multiply", {"rows": torch.zeros(3, 17)}, "panels must be"),
        ("multiply", {"panels": torch.zeros(6, 1, 6, 16)}, "panels must be"),
        ("multiply", {"panels": torch.zeros(9, 1, 96)}, "panels must be"),
        ("multiply", {"panels": torch.zeros(9, 1, 6, 8)}, "no panels of this width"),
        ("multiply", {"bias": torch.zeros(3)}, "a number for each output"),
        ("multiply", {"bias": torch.zeros(2).double()}, "bias must be contiguous float32"),
        ("multiply", {"row_end": 4}, "no such kernel rows"),
        ("spread", {"grad_rows": torch.zeros(2, 2)}, "a row's gradient for each box"),
        ("spread", {"panels": torch.zeros(9, 2, 2, 16)}, "panels must be"),
        ("spread", {"panels": torch.zeros(9, 1, 3, 16)}, "panels must be"),
        ("spread", {"grad_map": torch.zeros(1, 4, 5, 6).double()}, "the map's gradient must be float32"),
        ("spread", {"panels": torch.zeros(9, 1, 2, 64)}, "no panels of this width"),
        ("collect", {"panel": 0}, "no panels of this width"),
        ("collect", {"grad_rows": torch.zeros(4, 2)}, "no such locations"),
        ("collect", {"grad_weight": torch.zeros(2, 3, 3, 7)}, "the weight's gradient must be"),
        ("collect", {"grad_weight": torch.zeros(2, 3, 6, 3).transpose(2, 3)}, "contiguous float32"),
    ],
)
def test_kernels_refuse_what_would_read_beyond_their_arguments(kernel, changes, message):
    operator = getattr(torch.ops.aligncli_ext, kernel)
    operator(**GOOD[kernel])
    with pytest.raises(RuntimeError, match=message):
        operator(**(GOOD[kernel] | changes))
