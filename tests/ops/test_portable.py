"""The fast backends against the reference: wild boxes, any layout, every dtype, bounded memory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aligncli.ops import matmul, portable, roi_conv, taps

FAST_BACKENDS = ("native", "portable")
WILD = [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e9, -1e6, 0.0, 1e-40]


def laid_out(tensor, layout):
    """The same values in another memory layout."""
    match layout:
        case "contiguous":
            return tensor.contiguous()
        case "channels_last":
            return tensor.contiguous(memory_format=torch.channels_last)
        case "transposed":
            return tensor.transpose(2, 3).contiguous().transpose(2, 3)
        case "every_second":
            return tensor.repeat_interleave(2, dim=3)[..., ::2]
        case "expanded":
            return tensor[:1].expand_as(tensor)
    raise AssertionError(layout)


layouts = st.sampled_from(["contiguous", "channels_last", "transposed", "every_second", "expanded"])


@st.composite
def problems(draw, dtype=torch.float64):
    """(features, boxes, weight, bias, stride), boxes with some wild sides."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    size = st.integers(1, 40)
    kernel = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    num_images, channels, out_channels = draw(st.integers(0, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    height, width, num_rois = draw(size), draw(size), draw(st.integers(0, 9))
    stride = draw(st.sampled_from([1, 4, 8.0, 7.5, 0.3]))

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    extent = torch.tensor([width, height, width, height], dtype=torch.float64) * stride
    boxes = (torch.rand(num_images, num_rois, 4, dtype=torch.float64, generator=generator) * 1.6 - 0.3) * extent
    for index in draw(st.lists(st.integers(0, max(0, boxes.numel() - 1)), max_size=6)) if boxes.numel() else []:
        boxes.view(-1)[index] = draw(st.sampled_from(WILD))
    if draw(st.booleans()):
        boxes[..., 2:] = boxes[..., :2]  # no area
    features = (
        laid_out(normal(num_images, channels, height, width), draw(layouts))
        if num_images
        else normal(0, channels, height, width)
    )
    weight = laid_out(normal(out_channels, channels, *kernel), draw(layouts))
    coordinates = torch.float64 if dtype == torch.float64 else torch.float32
    return features, boxes.to(coordinates), weight, draw(st.sampled_from([None, normal(out_channels)])), stride


def compute_with_gradients(backend, features, boxes, weight, bias, stride):
    inputs = [None if value is None else value.detach().requires_grad_() for value in (features, boxes, weight, bias)]
    output = roi_conv(*inputs, stride=stride, backend=backend)
    # Small integers are the same number in every dtype, and do not cancel in the bias' gradient.
    grad = (torch.arange(output.numel(), device=output.device) % 8 - 3).to(output.dtype).view(output.shape)
    gradients = torch.autograd.grad(output, [value for value in inputs if value is not None], grad)
    return [output.detach(), *gradients]


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_values_and_gradients_are_the_references(problem, backend):
    results = compute_with_gradients(backend, *problem)
    assert all(result.isfinite().all() for result in results)
    torch.testing.assert_close(results, compute_with_gradients("reference", *problem), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@settings(max_examples=50, deadline=None)
@given(problem=problems(dtype=torch.float32))
def test_values_and_gradients_are_the_references_in_float32(problem, backend):
    results = compute_with_gradients(backend, *problem)
    assert all(result.isfinite().all() for result in results)
    expected = compute_with_gradients("reference", *problem)
    for result, reference in zip(results, expected, strict=True):
        scale = reference.abs().max().item() if reference.numel() else 1.0
        torch.testing.assert_close(result, reference, rtol=0, atol=2e-5 * max(scale, 1.0))


@pytest.mark.parametrize(
    ("dtype", "tolerance", "backend"),
    [
        (torch.float64, 1e-13, "native"),
        (torch.float64, 1e-13, "portable"),
        (torch.float32, 2e-6, "native"),
        (torch.float32, 2e-6, "portable"),
        (torch.bfloat16, 1e-2, "native"),
        (torch.bfloat16, 1e-2, "portable"),
        (torch.float16, 2e-3, "portable"),
    ],
)
def test_every_dtype_is_as_precise_as_its_numbers(dtype, tolerance, backend, random_boxes):
    """Tolerances are fractions of the largest value; all start from the same rounded inputs."""
    features, weight = torch.randn(2, 32, 9, 8).to(dtype), (torch.randn(8, 32, 3, 3) / 17).to(dtype)
    bias, boxes = torch.randn(8).to(dtype), random_boxes(2, 9, 8, 8).flatten(1, 2).float()
    results = compute_with_gradients(backend, features, boxes, weight, bias, 8)
    exact = compute_with_gradients("reference", features.double(), boxes.double(), weight.double(), bias.double(), 8)
    assert [result.dtype for result in results] == [dtype, dtype, torch.float32, dtype, dtype]
    boxes_tolerance = max(tolerance, 2e-6)  # points are float32 unless boxes are float64 as well
    for index, (result, expected) in enumerate(zip(results, exact, strict=True)):
        error = (result.double() - expected).abs().max() / expected.abs().max()
        assert error <= (boxes_tolerance if index == 2 else tolerance), index


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize(("num_images", "num_rois"), [(0, 5), (2, 0), (0, 0)])
def test_no_images_and_no_boxes_give_empty_results_and_zero_gradients(num_images, num_rois, backend):
    features, boxes = torch.randn(num_images, 3, 4, 5), torch.rand(num_images, num_rois, 4)
    results = compute_with_gradients(backend, features, boxes, torch.randn(2, 3, 3, 3), torch.randn(2), 8)
    shapes = [(num_images, num_rois, 2), features.shape, boxes.shape, (2, 3, 3, 3), (2,)]
    assert [tuple(result.shape) for result in results] == [tuple(shape) for shape in shapes]
    assert not any(result.any() for result in results)


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_float64_boxes_get_float64_gradients_from_float32_features(backend):
    features, weight = torch.randn(1, 3, 4, 5), torch.randn(2, 3, 3, 3)
    boxes = (torch.rand(1, 6, 4, dtype=torch.float64) * 40).requires_grad_()
    roi_conv(features, boxes, weight, stride=8, backend=backend).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.dtype == torch.float64


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_results_repeat_bit_by_bit(threads, num_threads, random_boxes, backend):
    num_threads(threads)
    problem = (torch.randn(2, 33, 20, 20), random_boxes(2, 20, 20, 8).flatten(1, 2).float(), torch.randn(17, 33, 3, 3))
    first = compute_with_gradients(backend, *problem, torch.randn(17), 8)
    for _ in range(3):
        again = compute_with_gradients(backend, *problem, torch.randn(17), 8)
        assert all(torch.equal(*pair) for pair in zip(first[1:], again[1:], strict=True))  # all but the bias' sum


def test_chunks_and_blocks_do_not_change_the_result(monkeypatch, random_boxes):
    problem = (
        torch.randn(3, 5, 6, 7, dtype=torch.float64),
        random_boxes(3, 6, 7, 8).flatten(1, 2),
        torch.randn(4, 5, 3, 3, dtype=torch.float64),
        torch.randn(4, dtype=torch.float64),
        8,
    )
    whole = compute_with_gradients("portable", *problem)
    for size in (1, 4000, 20_000):  # a location at a time; then chunks that do not divide images or blocks
        monkeypatch.setattr(taps, "CPU_CHUNK_BYTES", size)
        parts = compute_with_gradients("portable", *problem)
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-11)


def test_without_onednn_the_result_is_the_same(monkeypatch, random_boxes):
    problem = (torch.randn(2, 8, 6, 7), random_boxes(2, 6, 7, 8).flatten(1, 2).float(), torch.randn(4, 8, 3, 3))
    expected = compute_with_gradients("portable", *problem, torch.randn(4), 8)[1:]
    monkeypatch.setattr(matmul, "onednn_serves", lambda _: False)
    results = compute_with_gradients("portable", *problem, torch.randn(4), 8)[1:]
    torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-4)


# ---------------------------------------------------------------- memory


@given(
    channels=st.integers(1, 4096),
    num_taps=st.integers(1, 49),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    device_type=st.sampled_from(["cpu", "cuda"]),
)
def test_a_chunk_of_columns_is_never_above_64_megabytes(channels, num_taps, dtype, device_type):
    num_locations = taps.chunk_locations(channels, num_taps, dtype, device_type)
    assert num_locations >= 1
    assert num_locations * num_taps * channels * dtype.itemsize <= 64 << 20
    num_locations = taps.block_locations(num_taps, dtype, device_type)
    assert num_locations >= 1
    assert num_locations * num_taps * 4 * (8 + dtype.itemsize) <= 64 << 20


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation returned."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.num_bytes = max([self.num_bytes, *(tensor.numel() * tensor.itemsize for tensor in tensors)])
        return result


def test_no_tensor_is_larger_than_a_chunk_or_the_inputs_and_outputs():
    height, width, channels = 64, 64, 32  # all columns of the 7 x 7 kernel would take 26 MB
    features = torch.randn(1, channels, height, width)
    boxes = torch.rand(1, height * width, 4) * width * 8
    weight = torch.randn(2, channels, 7, 7)
    with LargestTensor() as largest:
        rows = portable.forward([features], [boxes], weight, None, [8.0])
        portable.backward(torch.ones_like(rows), [features], [boxes], weight, [8.0], [True, True, True])
    assert largest.num_bytes <= 2 * taps.CPU_CHUNK_BYTES


# ---------------------------------------------------------------- CUDA


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.float16, 4e-3), (torch.bfloat16, 2e-2)],
)
def test_cuda_computes_what_the_cpu_does(dtype, tolerance, random_boxes):
    boxes = random_boxes(2, 20, 24, 8).flatten(1, 2).float()
    boxes.view(-1)[: len(WILD)] = torch.tensor(WILD)
    problem = (
        torch.randn(2, 32, 20, 24).to(dtype),
        boxes,
        (torch.randn(16, 32, 3, 3) / 17).to(dtype),
        torch.randn(16).to(dtype),
    )
    results = [roi.cpu() for roi in compute_with_gradients("portable", *(tensor.cuda() for tensor in problem), 8)]
    for result, expected in zip(results, compute_with_gradients("portable", *problem, 8), strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(result, expected, rtol=0, atol=tolerance * scale)
