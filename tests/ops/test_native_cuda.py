"""The CUDA backend on a GPU. test_native_cuda_emulated.py runs the same kernels and driver where there is none.

On a machine with a GPU, this is what to run (compute-sanitizer comes with the CUDA toolkit):
    pytest -m gpu
    compute-sanitizer --tool memcheck python -m pytest -m gpu tests/ops/test_native_cuda.py -k "not billion"
    compute-sanitizer --tool initcheck python -m pytest -m gpu tests/ops/test_native_cuda.py -k "references"
    compute-sanitizer --tool racecheck python -m pytest -m gpu tests/ops/test_native_cuda.py -k "references"
"""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from aligncli.ops import RoIConv2d, choose_backend, roi_conv
from tests.ops.test_portable import WILD, compute_with_gradients, problems

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

TOLERANCES = [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 2e-2)]


@pytest.fixture(autouse=True)
def full_float32_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def pyramid(random_boxes):
    """(features, boxes, strides) of two images of 256 x 320 pixels, on the GPU, in bfloat16."""
    strides = (8, 16, 32)
    features = [torch.randn(2, 64, 256 // one, 320 // one).bfloat16().cuda() for one in strides]
    features = [level.to(memory_format=torch.channels_last).requires_grad_() for level in features]
    boxes = [random_boxes(2, 256 // one, 320 // one, one).flatten(1, 2).float().cuda() for one in strides]
    return features, boxes, strides


def relative_errors(results: list[Tensor], expected: list[Tensor]) -> list[float]:
    """The largest difference as a fraction of the largest number, for each."""
    pairs = zip(results, expected, strict=True)
    return [
        ((result.double().cpu() - exact.double().cpu()).abs().max() / exact.abs().max().clamp(min=1).cpu()).item()
        for result, exact in pairs
        if exact.numel()
    ]


def on_device(problem, dtype=None, device="cuda"):
    features, boxes, weight, bias, stride = problem
    features, weight, bias = (None if one is None else one.to(device, dtype) for one in (features, weight, bias))
    return features, boxes.to(device), weight, bias, stride


def exact_results(problem) -> list[Tensor]:
    features, boxes, weight, bias, stride = problem
    widened = (features.float(), boxes, weight.float(), None if bias is None else bias.float(), stride)
    return compute_with_gradients("reference", *widened)


# ---------------------------------------------------------------- numbers


def test_cuda_kernels_are_what_auto_takes():
    for dtype, _ in TOLERANCES:
        assert choose_backend(device="cuda", dtype=dtype).name in ("native", "fused")
    backend = choose_backend(device="cuda", dtype=torch.float64)
    assert backend.name == "portable"
    assert "float64" in backend.reason


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("channels", [1, 7, 8, 12, 64, 256, 1048])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (2, 5), (7, 7)])
def test_values_and_gradients_are_the_references_in_every_dtype(dtype, tolerance, channels, kernel_size, random_boxes):
    boxes = random_boxes(2, 19, 23, 8).flatten(1, 2).float()
    boxes.view(-1)[: len(WILD)] = torch.tensor(WILD)
    scale = math.sqrt(channels * math.prod(kernel_size))
    weight, features = torch.randn(32, channels, *kernel_size) / scale, torch.randn(2, channels, 19, 23)
    problem = on_device((features, boxes, weight, torch.randn(32), 8), dtype)
    assert max(relative_errors(compute_with_gradients("native", *problem), exact_results(problem))) <= tolerance


@settings(max_examples=100, deadline=None)
@given(problem=problems(dtype=torch.float32))
def test_values_and_gradients_are_the_references_for_wild_problems(problem):
    problem = on_device(problem)
    results = compute_with_gradients("native", *problem)
    assert all(result.isfinite().all() for result in results)
    # At 40 cells from the corner a coordinate is rounded by 40 / 2^24, which the slopes of noise multiply, and the
    # GPU's own products and divisions round otherwise than the reference's.
    assert max(relative_errors(results, exact_results(problem)), default=0.0) <= 1e-4


@pytest.mark.parametrize("backend", ["native", "auto"])
def test_more_than_two_billion_numbers(backend):
    """Offsets into the map and into its gradient take 64 bits."""
    height = width = 2912
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GB of free GPU memory")
    features = torch.zeros(1, height, width, 256, dtype=torch.bfloat16, device="cuda").permute(0, 3, 1, 2)
    assert features.numel() > 2**31
    corner = torch.randn(1, 256, 8, 8).bfloat16().cuda()
    features[..., -8:, -8:] = corner
    boxes = (torch.rand(1, 50, 4) * 4 + torch.tensor([1.0, 1, 3, 3])).cuda()  # on the corner, in cells
    weight = torch.randn(16, 256, 3, 3).bfloat16().cuda() / 48
    far = boxes + torch.tensor([width - 8, height - 8] * 2, device="cuda")

    def compute(features: Tensor, boxes: Tensor) -> list[Tensor]:
        features = features.detach().requires_grad_()
        rows = roi_conv(features, boxes, weight, stride=1, backend=backend)
        rows.backward(torch.ones_like(rows))
        assert features.grad is not None
        return [rows, features.grad[..., -8:, -8:]]

    # A float32 box has less of a fraction far out, and the gradient is summed in another order.
    assert max(relative_errors(compute(features, far), compute(corner, boxes))) <= 2e-2


# ---------------------------------------------------------------- how it runs


def run(module: RoIConv2d, pyramid) -> list[Tensor]:
    """Outputs, then gradients of the features and the weight."""
    features, boxes, strides = pyramid
    outputs = roi_conv(features, boxes, module.weight, module.bias, stride=strides, backend="native")
    gradients = torch.autograd.grad(outputs, [*features, module.weight], [torch.ones_like(one) for one in outputs])
    return [*outputs, *gradients]


@pytest.fixture
def module() -> RoIConv2d:
    return RoIConv2d(64, 32, 3, stride=8, device="cuda", dtype=torch.bfloat16)


def test_it_runs_on_the_current_stream(module, pyramid):
    expected = run(module, pyramid)
    features, boxes, strides = pyramid
    stream = torch.cuda.Stream()
    late = [torch.zeros_like(level) for level in boxes]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # the boxes come late, on this stream only
        for level, value in zip(late, boxes):
            level.copy_(value)
        results = run(module, (features, late, strides))
    stream.synchronize()
    assert max(relative_errors(results, expected)) <= 1e-2


def test_it_never_waits_for_the_device(module, pyramid):
    run(module, pyramid)  # kernels are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(module, pyramid)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_cuda_graph_replays_it_on_new_numbers(module, pyramid):
    features, boxes, _ = pyramid
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(module, pyramid)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(module, pyramid)
    with torch.no_grad():
        for level, level_boxes in zip(features, boxes):
            level.copy_(torch.randn_like(level))
            level_boxes.add_(3.7)
    graph.replay()
    replayed = [one.clone() for one in captured]
    assert max(relative_errors(replayed, run(module, pyramid))) <= 1e-2


def test_deterministic_mode_repeats_bit_by_bit(module, pyramid, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    usual = run(module, pyramid)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = run(module, pyramid), run(module, pyramid)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert max(relative_errors(first, usual)) <= 1e-2


def test_gradients_of_boxes_repeat_bit_by_bit(random_boxes):
    features, weight = torch.randn(2, 40, 20, 20, device="cuda"), torch.randn(16, 40, 3, 3, device="cuda")
    boxes = random_boxes(2, 20, 20, 8).flatten(1, 2).float().cuda().requires_grad_()
    rows = roi_conv(features, boxes, weight, stride=8, backend="native")
    first, second = (torch.autograd.grad(rows.sum(), boxes, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_the_half_type(dtype, random_boxes):
    module = RoIConv2d(64, 32, 3, stride=8, device="cuda", backend="native")
    features = torch.randn(2, 64, 20, 24, device="cuda", requires_grad=True)
    boxes = random_boxes(2, 20, 24, 8).float().cuda()
    with torch.autocast("cuda", dtype=dtype):
        output = module(features, boxes)
    assert output.dtype == dtype
    assert max(relative_errors([output], [module(features, boxes)])) <= 1e-2
    output.float().square().sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_it_runs_where_its_tensors_are(random_boxes):
    boxes = random_boxes(2, 9, 8, 8).flatten(1, 2).float()
    problem = (torch.randn(2, 32, 9, 8), boxes, torch.randn(16, 32, 3, 3), torch.randn(16), 8)
    assert torch.cuda.current_device() == 0
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        results = compute_with_gradients("native", *on_device(problem, device=device))
        assert {str(result.device) for result in results} == {device}
        assert max(relative_errors(results, exact_results(problem))) <= 1e-4
    assert torch.cuda.current_device() == 0


def test_forward_needs_a_chunk_of_columns_beside_its_output():
    strides = (8, 16, 32, 64, 128)
    sizes = [(800 // one, 1333 // one) for one in strides]
    features = [torch.randn(1, 256, *size, device="cuda").bfloat16() for size in sizes]
    features = [level.to(memory_format=torch.channels_last) for level in features]
    boxes = [torch.rand(1, height * width, 4, device="cuda") * 800 for height, width in sizes]
    weight = torch.randn(256, 256, 7, 7, device="cuda").bfloat16()
    roi_conv(features, boxes, weight, stride=strides, backend="native")  # cuBLAS takes its workspace
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = roi_conv(features, boxes, weight, stride=strides, backend="native")
    output_bytes = sum(one.numel() * one.itemsize for one in outputs)
    assert torch.cuda.max_memory_allocated() - before - output_bytes <= 64 << 20
