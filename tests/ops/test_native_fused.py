"""The fused forward pass: on a Hopper GPU where there is one; what is launched is in tests/ext/test_cuda_launch.py.

On a machine with such a GPU, this is what to run beside what test_native_cuda.py says:
    compute-sanitizer --tool memcheck python -m pytest -m gpu tests/ops/test_native_fused.py -k "references"
    compute-sanitizer --tool racecheck python -m pytest -m gpu tests/ops/test_native_fused.py -k "references"
    aligncli bench op --dtype bfloat16 --backend native,fused --peers conv2d
"""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncli.ops import native_cuda, native_fused, roi_conv
from aligncli_ext import fused
from tests.ops.test_native_cuda import exact_results, on_device, relative_errors
from tests.ops.test_portable import WILD, compute_with_gradients, problems

HALF_TYPES = [(torch.float16, 4e-3), (torch.bfloat16, 2e-2)]
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != fused.CAPABILITY, reason="no Hopper GPU"
)


def test_gradients_are_the_chunked_paths():
    assert native_fused.backward is native_cuda.backward


def test_a_layer_that_is_not_served_is_the_chunked_paths(monkeypatch, random_boxes):
    monkeypatch.setattr(native_cuda, "forward", lambda *arguments: arguments)
    features, boxes = [torch.randn(1, 8, 5, 6)], [random_boxes(1, 5, 6, 8).flatten(1, 2).float()]
    arguments = (features, boxes, torch.randn(4, 8, 3, 3), None, [8.0])
    assert native_fused.forward(*arguments) == arguments


def test_the_bias_is_copied_where_the_kernels_accesses_may_not_begin(monkeypatch, random_boxes):
    taken = []
    kernel = SimpleNamespace(on_device=nullcontext, multiply=lambda *arguments: taken.append(arguments))
    monkeypatch.setattr(fused, "load_kernel", lambda *key: kernel)
    boxes = [random_boxes(1, 5, 6, 8).flatten(1, 2).float()]
    numbers = torch.randn(8 * 64 * 9 + 1).bfloat16()
    weight = numbers[1:].view(8, 3, 3, 64).permute(0, 3, 1, 2)
    native_fused.forward([torch.randn(1, 64, 5, 6).bfloat16()], boxes, weight, numbers[3:11], [8.0])
    (_, as_it_lies, bias, rows) = taken[0]
    assert as_it_lies is weight
    assert all(tensor.data_ptr() % 16 == 0 and tensor.is_contiguous() for tensor in (bias, rows))
    assert torch.equal(bias, numbers[3:11])
    assert rows.shape == (30, 8)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), HALF_TYPES)
@pytest.mark.parametrize("channels", [8, 64, 192])  # 8: not served
@pytest.mark.parametrize("out_channels", [8, 64, 72, 136, 256, 264])  # of all blocks, whole and not; 264: not served
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (2, 5), (7, 7)])
def test_values_are_the_references_and_the_chunked_paths(
    dtype, tolerance, channels, out_channels, kernel_size, random_boxes
):
    boxes = random_boxes(2, 19, 23, 8).flatten(1, 2).float()
    boxes.view(-1)[: len(WILD)] = torch.tensor(WILD)
    scale = math.sqrt(channels * math.prod(kernel_size))
    weight, features = torch.randn(out_channels, channels, *kernel_size) / scale, torch.randn(2, channels, 19, 23)
    problem = on_device((features, boxes, weight, torch.randn(out_channels), 8), dtype)
    results = compute_with_gradients("fused", *problem)
    assert max(relative_errors(results, exact_results(problem))) <= tolerance
    assert max(relative_errors(results[:1], compute_with_gradients("native", *problem)[:1])) <= tolerance


@pytest.mark.gpu
@needs_gpu
@settings(max_examples=60, deadline=None)
@given(problem=problems(dtype=torch.float16), steps=st.integers(1, 3), out_channels=st.sampled_from([8, 64, 200]))
def test_values_are_the_references_for_wild_problems(problem, steps, out_channels):
    """Maps, boxes and kernels as they come, with channels and outputs that are served."""
    features, boxes, weight, _, stride = problem
    channels = 64 * steps
    features = torch.randn(len(features), channels, *features.shape[2:], dtype=torch.float16)
    weight = torch.randn(out_channels, channels, *weight.shape[2:]) / math.sqrt(channels * weight[0, 0].numel())
    problem = on_device((features, boxes, weight.half(), None, stride))
    results = compute_with_gradients("fused", *problem)
    assert all(result.isfinite().all() for result in results)
    assert max(relative_errors(results, exact_results(problem)), default=0.0) <= 4e-3


@pytest.fixture
def pyramid(random_boxes):
    """(features, boxes, weight, bias, strides) of two images of 256 x 320 pixels, on the GPU, in bfloat16."""
    strides = (8, 16, 32, 64, 128)
    sizes = [(256 // one, -(-320 // one)) for one in strides]
    features = [torch.randn(2, 256, *size, device="cuda").bfloat16() for size in sizes]
    boxes = [random_boxes(2, *size, one).flatten(1, 2).float().cuda() for size, one in zip(sizes, strides)]
    weight, bias = torch.randn(256, 256, 3, 3, device="cuda") / 48, torch.randn(256, device="cuda")
    return features, boxes, weight.bfloat16(), bias.bfloat16(), strides


def run(pyramid, backend="fused"):
    features, boxes, weight, bias, strides = pyramid
    return roi_conv(features, boxes, weight, bias, stride=strides, backend=backend)


@pytest.mark.gpu
@needs_gpu
def test_it_repeats_bit_by_bit_and_never_waits_for_the_device(pyramid):
    first = run(pyramid)
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = run(pyramid)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert max(relative_errors(first, run(pyramid, "native"))) <= 2e-2


@pytest.mark.gpu
@needs_gpu
def test_a_cuda_graph_replays_it_on_new_numbers(pyramid):
    features, boxes, *_ = pyramid
    run(pyramid)  # the kernel is compiled
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(pyramid)
    for level, level_boxes in zip(features, boxes):
        level.copy_(torch.randn_like(level))
        level_boxes.add_(3.7)
    graph.replay()
    assert all(torch.equal(*pair) for pair in zip(captured, run(pyramid), strict=True))


@pytest.mark.gpu
@needs_gpu
def test_forward_needs_a_packed_weight_beside_its_output(pyramid):
    pyramid[0][:] = [level.to(memory_format=torch.channels_last) for level in pyramid[0]]
    weight = pyramid[2].to(memory_format=torch.channels_last)
    pyramid = (*pyramid[:2], weight, *pyramid[3:])
    run(pyramid)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = run(pyramid)
    output_bytes = sum(one.numel() * one.itemsize for one in outputs)
    weight_bytes = weight.numel() * weight.itemsize
    assert torch.cuda.max_memory_allocated() - before - output_bytes <= weight_bytes + (1 << 20)
