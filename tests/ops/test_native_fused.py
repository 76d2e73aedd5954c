"""The fused forward pass: in Triton's interpreter everywhere, on a GPU where there is one.

On a machine with a GPU, this is what to run beside what test_native_cuda.py says:
    compute-sanitizer --tool memcheck python -m pytest -m gpu tests/ops/test_native_fused.py -k "references"
    compute-sanitizer --tool initcheck python -m pytest -m gpu tests/ops/test_native_fused.py -k "references"
    aligncli bench op --dtype bfloat16 --backend native,fused --peers conv2d
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from aligncli.ops import native_cuda, native_fused, roi_conv
from aligncli_ext import fused
from tests.ops.test_native_cuda import exact_results, on_device, relative_errors
from tests.ops.test_portable import WILD, compute_with_gradients, problems

ROOT = Path(__file__).parents[2]
HALF_TYPES = [(torch.float16, 4e-3), (torch.bfloat16, 2e-2)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_the_kernel_computes_the_reference_in_tritons_interpreter():
    pytest.importorskip("triton", reason="Triton comes with CUDA builds of PyTorch for Linux")
    tests = "tests/ops/fused_in_interpreter.py"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tests],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_gradients_are_the_chunked_paths():
    assert native_fused.backward is native_cuda.backward


# ---------------------------------------------------------------- where it cannot run


@pytest.fixture
def reason_on(monkeypatch):
    """`fused.unavailable_reason` of a device with some compute capability."""

    def find(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        return fused.unavailable_reason.__wrapped__(0)

    return find


def test_turing_is_told_that_triton_has_no_tensor_core_products_for_it(reason_on):
    assert reason_on((7, 5)) == (
        "the device's compute capability is 7.5, and Triton has no tensor-core products below 8.0"
    )


def test_without_triton_the_reason_says_where_it_comes_from(reason_on, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton.errors", None)
    assert reason_on((9, 0)).startswith("Triton, which comes with CUDA builds of PyTorch for Linux, is missing (")


@pytest.mark.parametrize("error", [RuntimeError("Failed to find C compiler.\nmore"), OSError("read-only")])
def test_a_triton_that_does_not_run_is_a_reason_of_one_line(error, reason_on, monkeypatch):
    def fail(device):
        raise error

    monkeypatch.setattr(fused, "_compute_something", fail)
    assert reason_on((8, 0)) == f"Triton does not run here: {str(error).splitlines()[0]}"


def test_the_trial_is_a_launch_on_the_device_that_is_asked_about(reason_on, monkeypatch):
    launched = []
    monkeypatch.setattr(fused, "_compute_something", launched.append)
    assert reason_on((8, 0)) is None
    assert launched == [torch.device("cuda", 0)]


# ---------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), HALF_TYPES)
@pytest.mark.parametrize("channels", [1, 7, 8, 40, 64, 256])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (2, 5), (7, 7)])
def test_values_are_the_references_and_the_chunked_paths(dtype, tolerance, channels, kernel_size, random_boxes):
    boxes = random_boxes(2, 19, 23, 8).flatten(1, 2).float()
    boxes.view(-1)[: len(WILD)] = torch.tensor(WILD)
    scale = (channels * kernel_size[0] * kernel_size[1]) ** 0.5
    weight, features = torch.randn(48, channels, *kernel_size) / scale, torch.randn(2, channels, 19, 23)
    problem = on_device((features, boxes, weight, torch.randn(48), 8), dtype)
    results = compute_with_gradients("fused", *problem)
    assert max(relative_errors(results, exact_results(problem))) <= tolerance
    assert max(relative_errors(results[:1], compute_with_gradients("native", *problem)[:1])) <= tolerance


@pytest.mark.gpu
@needs_gpu
@settings(max_examples=30, deadline=None)
@given(problem=problems(dtype=torch.float16))
def test_values_are_the_references_for_wild_problems(problem):
    problem = on_device(problem)
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
def test_forward_needs_no_memory_beside_its_output(pyramid):
    pyramid[0][:] = [level.to(memory_format=torch.channels_last) for level in pyramid[0]]
    weight = pyramid[2].to(memory_format=torch.channels_last)
    pyramid = (*pyramid[:2], weight, *pyramid[3:])
    run(pyramid)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = run(pyramid)
    output_bytes = sum(one.numel() * one.itemsize for one in outputs)
    assert torch.cuda.max_memory_allocated() - before - output_bytes <= 1 << 20
