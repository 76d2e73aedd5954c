"""The CPU kernels by themselves, and the loop around them; test_portable.py holds them against the reference."""

import pytest
import torch

from aligncli.ops import implicit_rois, native, native_columns, native_tiles, portable
from aligncli.ops.backend import missing_native
from aligncli.ops.native_parts import groups_of_kernel_rows
from tests.ops.test_portable import WILD, LargestTensor

pytestmark = pytest.mark.skipif(
    missing_native(device="cpu", dtype=torch.float32) is not None,
    reason=f"no native kernels: {missing_native(device='cpu', dtype=torch.float32)}",
)
KERNEL = (3, 5)
ALL_TAPS = (*KERNEL, 0, KERNEL[0], 8.0)  # kernel size, kernel rows, stride


@pytest.fixture(params=[torch.float64, torch.float32, torch.bfloat16], ids=str)
def level(request, random_boxes):
    """A channels-last map with an odd number of channels, and boxes of which some are wild."""
    dtype = request.param
    boxes = random_boxes(2, 9, 11, 8).flatten(1, 2).to(torch.promote_types(dtype, torch.float32))
    boxes.view(-1)[: 4 * len(WILD) : 4] = torch.tensor(WILD)
    return torch.randn(2, 9, 11, 45).to(dtype), boxes


def gather(features, boxes):
    columns = features.new_empty(boxes.shape[0] * boxes.shape[1], 15 * features.shape[-1])
    torch.ops.aligncli_ext.gather(features, boxes, 0, *ALL_TAPS, columns)
    return columns


def scatter(columns, features, boxes):
    grad_map = torch.zeros_like(features, dtype=boxes.dtype)
    torch.ops.aligncli_ext.scatter(columns, boxes, 0, *ALL_TAPS, grad_map)
    return grad_map


def grad_boxes(columns, features, boxes):
    grad = torch.zeros_like(boxes)
    torch.ops.aligncli_ext.grad_boxes(columns, features, boxes, 0, *ALL_TAPS, grad)
    return grad


def test_the_kernels_do_not_depend_on_the_number_of_threads(level, num_threads):
    features, boxes = level
    columns = torch.randn(boxes.shape[0] * boxes.shape[1], 15 * 45).to(features.dtype)
    results = []
    for threads in (1, 2, 3):
        num_threads(threads)
        results.append((gather(*level), scatter(columns, *level), grad_boxes(columns, *level)))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_scatter_is_the_transpose_of_gather(level):
    features, boxes = (tensor.double() for tensor in level)
    columns = torch.randn(boxes.shape[0] * boxes.shape[1], 15 * 45, dtype=torch.float64)
    product = (gather(features, boxes) * columns).sum()
    torch.testing.assert_close((features * scatter(columns, features, boxes)).sum(), product)


def test_a_gathered_cell_is_exactly_the_cell():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        features = torch.randn(1, 6, 7, 40).to(dtype)
        boxes = implicit_rois(6, 7, (1, 1), 8.0).view(1, -1, 4).to(torch.promote_types(dtype, torch.float32))
        columns = torch.empty(42, 40, dtype=dtype)
        torch.ops.aligncli_ext.gather(features, boxes, 0, 1, 1, 0, 1, 8.0, columns)
        assert torch.equal(columns, features.view(42, 40))


def test_bfloat16_is_rounded_as_pytorch_rounds():
    features = torch.cat([torch.randn(1, 2, 2, 33) * scale for scale in (1e-38, 1.0, 1e38)], dim=-1).bfloat16()
    boxes = torch.tensor([[[2.0, 3.0, 11.0, 14.0]]])
    columns = torch.empty(1, 99, dtype=torch.bfloat16)
    torch.ops.aligncli_ext.gather(features, boxes, 0, 1, 1, 0, 1, 8.0, columns)
    exact = torch.empty(1, 99)
    torch.ops.aligncli_ext.gather(features.float(), boxes, 0, 1, 1, 0, 1, 8.0, exact)
    assert torch.equal(columns, exact.bfloat16())


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_bfloat16_keeps_what_is_not_finite(value):
    features = torch.full((1, 1, 1, 33), value, dtype=torch.bfloat16)
    columns = torch.empty(1, 33, dtype=torch.bfloat16)
    torch.ops.aligncli_ext.gather(features, torch.tensor([[[0.0, 0, 6, 6]]]), 0, 1, 1, 0, 1, 8.0, columns)
    assert not columns.isfinite().any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(1, 4, 5, 6).half()}, "float32, float64 and bfloat16 only"),
        ({"features": torch.zeros(1, 5, 4, 6).transpose(1, 2)}, r"the map must be a contiguous \(N, H, W, C\)"),
        ({"boxes": torch.zeros(2, 3, 4)}, "as many images"),
        ({"boxes": torch.zeros(1, 3, 4).double()}, "boxes must be a contiguous"),
        ({"boxes": torch.zeros(1, 3, 5)}, "boxes must be a contiguous"),
        ({"first": 2}, "no such locations"),
        ({"first": -1}, "no such locations"),
        ({"row_end": 4}, "no such kernel rows"),
        ({"columns": torch.zeros(2, 50)}, "columns must be a contiguous"),
        ({"columns": torch.zeros(2, 54).double()}, "columns must be a contiguous"),
    ],
)
def test_kernels_refuse_what_would_read_beyond_their_arguments(changes, message):
    arguments = {
        "features": torch.zeros(1, 4, 5, 6),
        "boxes": torch.zeros(1, 3, 4),
        "first": 0,
        "kernel_height": 3,
        "kernel_width": 3,
        "row_begin": 0,
        "row_end": 3,
        "stride": 8.0,
        "columns": torch.zeros(2, 54),
    }
    with pytest.raises(RuntimeError, match=message):
        torch.ops.aligncli_ext.gather(**(arguments | changes))


# ---------------------------------------------------------------- the loop


def problem(random_boxes, channels=5, dtype=torch.float64):
    strides = [8.0, 16.0, 32.0]
    sizes = [(6, 7), (3, 4), (2, 1)]
    features = [torch.randn(2, channels, *size, dtype=dtype) for size in sizes]
    boxes = [random_boxes(2, *size, stride).flatten(1, 2).to(dtype) for size, stride in zip(sizes, strides)]
    return features, boxes, torch.randn(4, channels, *KERNEL, dtype=dtype), strides


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 20_000])
@pytest.mark.parametrize("matrix_bytes", [1, 2000])  # a kernel row of an output takes 200
def test_chunks_and_groups_of_kernel_rows_and_outputs_do_not_change_the_result(
    monkeypatch, random_boxes, chunk_bytes, matrix_bytes
):
    features, boxes, weight, strides = problem(random_boxes)
    grad = torch.randn(2 * (42 + 12 + 2), 4, dtype=torch.float64)
    bias, needs = torch.randn(4, dtype=torch.float64), [True] * 7

    def compute(implementation):
        rows = implementation.forward(features, boxes, weight, bias, strides)
        return rows, *implementation.backward(grad, features, boxes, weight, strides, needs)

    expected = compute(portable)
    monkeypatch.setattr(native_columns, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(native_columns, "TILE", 2)
    monkeypatch.setattr(native_columns, "onednn_serves", lambda _: True)  # which takes some outputs at a time
    monkeypatch.setattr(native_columns, "FORWARD_MATRIX_BYTES", matrix_bytes)
    monkeypatch.setattr(native_columns, "BACKWARD_MATRIX_BYTES", matrix_bytes)
    torch.testing.assert_close(compute(native), expected, rtol=0, atol=1e-11)


def test_a_large_weight_is_packed_a_part_at_a_time(monkeypatch):
    """While a part is packed it is held twice, and with it the forward pass is to stay within 8 MB."""
    monkeypatch.setattr(native_columns, "onednn_serves", lambda _: True)
    weight = torch.empty(1024, 256, 7, 7).to(memory_format=torch.channels_last)
    parts = [
        kernel.matrix(weight, outputs)
        for kernel in groups_of_kernel_rows(weight, native_columns.FORWARD_MATRIX_BYTES)
        for outputs in native_columns._groups_of_outputs(weight, kernel)
    ]
    assert sum(part.numel() for part in parts) == weight.numel()
    assert max(part.numel() * part.itemsize for part in parts) <= native_columns.FORWARD_MATRIX_BYTES


def test_the_columns_of_a_product_leave_room_within_8_megabytes():
    kernel = next(iter(groups_of_kernel_rows(torch.empty(256, 256, 3, 3), native_columns.FORWARD_MATRIX_BYTES)))
    assert kernel.num_taps() == 9
    assert native_columns.PRODUCT_ROWS == 384
    assert native_columns.PRODUCT_ROWS * kernel.num_taps() * 256 * 4 <= 7.5e6


def test_no_tensor_is_larger_than_a_chunk_or_the_inputs_and_outputs(monkeypatch):
    monkeypatch.setattr(native_tiles, "tiles_serve", lambda _: False)
    height, width, channels = 64, 128, 32  # all columns of the 7 x 7 kernel would take 51 MB
    features = torch.randn(1, channels, height, width)
    boxes = torch.rand(1, height * width, 4) * width * 8
    weight = torch.randn(2, channels, 7, 7)
    with LargestTensor() as largest:
        rows = native.forward([features], [boxes], weight, None, [8.0])
    assert largest.num_bytes <= native_columns.CHUNK_BYTES
    with LargestTensor() as largest:
        native.backward(torch.ones_like(rows), [features], [boxes], weight, [8.0], [True, True, True])
    assert largest.num_bytes <= native_columns.CHUNK_BYTES
