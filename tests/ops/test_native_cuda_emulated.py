"""The CUDA kernels and their driver, run on the CPU, against the reference: wild boxes, any layout, every dtype."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from aligncli.ops import RoIConv2d, native_cuda, operator, reference
from aligncli_ext.cuda import Kernels, Pyramid
from tests.ext.emulator import EmulatedKernels, build_emulated_kernels
from tests.ops.test_portable import problems

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory) -> dict[torch.dtype, EmulatedKernels]:
    directory = tmp_path_factory.mktemp("emulated")
    return {dtype: build_emulated_kernels(dtype, directory) for dtype in DTYPES}


@pytest.fixture
def on_cpu(emulated, monkeypatch) -> None:
    """The CUDA backend takes CPU tensors."""
    monkeypatch.setattr(native_cuda, "_kernels_for", lambda weight: emulated[weight.dtype])
    # PyTorch has products of half types with a float32 result on CUDA only.
    monkeypatch.setattr(
        native_cuda, "_add_product", lambda total, left, right: total.add_(left.float() @ right.float())
    )


def compute(features, boxes, weight, bias, strides) -> list[Tensor]:
    """The CUDA backend's rows, then its gradients of features and boxes a level and of the weight."""
    rows = native_cuda.forward(features, boxes, weight, bias, strides)
    needs = [True] * (2 * len(features) + 1)
    return [rows, *native_cuda.backward(fixed_gradient(rows), features, boxes, weight, strides, needs)]


def compute_reference(features, boxes, weight, bias, strides) -> list[Tensor]:
    """The specification's, from the same rounded numbers; the gradients are autograd's."""
    features, boxes = (
        [level.detach().float().clone().requires_grad_() for level in part] for part in (features, boxes)
    )
    weight = weight.float().clone().requires_grad_()
    rows = reference.forward(features, boxes, weight, None if bias is None else bias.float(), strides)
    gradients = torch.autograd.grad(rows, [*features, *boxes, weight], fixed_gradient(rows))
    return [rows.detach(), *gradients]


def fixed_gradient(rows: Tensor) -> Tensor:
    # Small integers are the same number in every dtype.
    return (torch.arange(rows.numel()) % 8 - 3).to(rows.dtype).view(rows.shape)


def assert_close(results: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Within a fraction of the largest number."""
    for result, exact in zip(results, expected, strict=True):
        assert result.shape == exact.shape
        assert result.isfinite().all()
        scale = max(exact.abs().max().item(), 1.0) if exact.numel() else 1.0
        torch.testing.assert_close(result.float(), exact, rtol=0, atol=tolerance * scale)


@pytest.mark.usefixtures("on_cpu")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems(dtype=torch.float32))
def test_values_and_gradients_are_the_references(problem):
    features, boxes, weight, bias, stride = problem
    arguments = ([features], [boxes], weight, bias, [float(stride)])
    assert_close(compute(*arguments), compute_reference(*arguments), 2e-5)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("channels", [1, 7, 8, 12, 40, 520])  # a number at a time, or 16 bytes; up to several a thread
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (2, 5), (7, 7)])
def test_every_dtype_and_width_is_as_precise_as_its_numbers(dtype, tolerance, channels, kernel_size, random_boxes):
    features = torch.randn(2, channels, 5, 6).to(dtype).to(memory_format=torch.channels_last)
    boxes = random_boxes(2, 5, 6, 8).flatten(1, 2).float()
    weight = (torch.randn(4, channels, *kernel_size) / 17).to(dtype)
    arguments = ([features], [boxes], weight, torch.randn(4).to(dtype), [8.0])
    results = compute(*arguments)
    assert [result.dtype for result in results] == [dtype, dtype, torch.float32, dtype]
    assert_close(results, compute_reference(*arguments), tolerance)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("chunk_bytes", [1, 40_000, 32 << 20])
def test_chunks_may_divide_images_and_span_levels(chunk_bytes, monkeypatch, random_boxes):
    monkeypatch.setattr(native_cuda, "GPU_CHUNK_BYTES", chunk_bytes)
    sizes, strides = [(9, 8), (4, 5), (1, 1), (2, 1)], [8.0, 16.0, 32.0, 64.0]
    features = [torch.randn(3, 8, *size) for size in sizes]
    boxes = [random_boxes(3, *size, stride).flatten(1, 2).float() for size, stride in zip(sizes, strides)]
    boxes[2] = boxes[2][:, :0]  # no box on a level
    arguments = (features, boxes, torch.randn(4, 8, 3, 3), torch.randn(4), strides)
    assert_close(compute(*arguments), compute_reference(*arguments), 2e-6)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("limit", ["MOST_LEVELS", "MOST_LOCATIONS", "MOST_KERNEL_SIDES", "MOST_ROW_NUMBERS"])
def test_what_the_kernels_cannot_count_is_plain_pytorchs(limit, monkeypatch, emulated, random_boxes):
    boxes = [random_boxes(1, 5, 6, 8).flatten(1, 2).float() for _ in range(2)]
    arguments = ([torch.randn(1, 8, 5, 6)] * 2, boxes, torch.randn(4, 8, 3, 3), torch.randn(4), [8.0, 8.0])
    monkeypatch.setattr(native_cuda, limit, 1)
    launched = emulated[torch.float32].launched
    launched.clear()
    assert_close(compute(*arguments), compute_reference(*arguments), 2e-6)
    assert launched == []


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("features_too", [True, False])
def test_only_the_needed_gradients_are_computed(features_too, random_boxes):
    features, weight = [torch.randn(1, 8, 5, 6)] * 2, torch.randn(4, 8, 3, 3)
    boxes = [random_boxes(1, 5, 6, 8).flatten(1, 2).float() for _ in range(2)]
    everything = compute(features, boxes, weight, None, [8.0, 8.0])[1:]
    grad = fixed_gradient(torch.empty(60, 4))
    needs = [features_too, False, False, True, not features_too]
    found = native_cuda.backward(grad, features, boxes, weight, [8.0, 8.0], needs)
    assert len(found) == sum(needs)
    for result, expected in zip(found, [one for one, needed in zip(everything, needs) if needed], strict=True):
        assert torch.equal(result, expected)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("offset", "width"), [(0, "wide"), (1, "narrow"), (4, "wide")])
def test_only_aligned_memory_is_read_16_bytes_at_a_time(offset, width, emulated, random_boxes):
    features = torch.randn(5 * 6 * 8 + offset)[offset:].view(1, 5, 6, 8).permute(0, 3, 1, 2)
    boxes = [random_boxes(1, 5, 6, 8).flatten(1, 2).float()]
    arguments = ([features], boxes, torch.randn(4, 8, 3, 3), None, [8.0])
    launched = emulated[torch.float32].launched
    launched.clear()
    results = compute(*arguments)
    # The columns and the gradients are our own memory, which is aligned.
    assert launched == [f"gather_{width}", f"gather_{width}", "scatter_wide", f"grad_boxes_{width}"]
    assert_close(results, compute_reference(*arguments), 2e-6)


@pytest.mark.usefixtures("on_cpu")
def test_it_works_behind_autograd_and_autocast(monkeypatch, random_boxes):
    monkeypatch.setattr(operator, "_implementation", lambda backend, weight: native_cuda)
    module = RoIConv2d(8, 4, 3, stride=8)
    features, boxes = torch.randn(2, 8, 5, 6, requires_grad=True), random_boxes(2, 5, 6, 8).float().requires_grad_()
    flat = ([features], [boxes.flatten(1, 2)], module.weight, module.bias, [8.0])
    rows, *gradients = compute_reference(*flat)
    with torch.autocast("cpu", dtype=torch.float16):
        half = module(features, boxes)
    output = module(features, boxes)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), output, rtol=0, atol=5e-3)
    assert_close([output.permute(0, 2, 3, 1).flatten(0, 2)], [rows], 2e-6)
    grad = fixed_gradient(rows).view(2, 5, 6, 4).permute(0, 3, 1, 2)
    found = torch.autograd.grad(output, [features, boxes, module.weight], grad)
    assert_close([found[0], found[1].flatten(1, 2), found[2]], gradients, 2e-6)


@pytest.mark.usefixtures("on_cpu")
def test_deterministic_mode_adds_in_a_fixed_order(monkeypatch, random_boxes):
    """The scatter kernel's additions come in any order on a GPU, so it must not run."""
    features, boxes = [torch.randn(1, 8, 5, 6)], [random_boxes(1, 5, 6, 8).flatten(1, 2).float()]
    arguments = (features, boxes, torch.randn(4, 8, 3, 3), None, [8.0])
    expected = compute_reference(*arguments)
    monkeypatch.setattr(Kernels, "scatter", None)
    with pytest.raises(TypeError):
        compute(*arguments)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert_close(compute(*arguments), expected, 2e-6)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([20, 28, 44, 52], 4 * 4),  # bins of a cell: the next tap reads one new row or column
        ([23, 31, 119, 127], 6 * 6),  # bins of four cells: no two taps share a cell
        ([21, 21, 23, 23], 2 * 2),  # all taps between the same four cells
        ([44, 52, 20, 28], 4 * 4),  # turned round
        ([20, 28, 116, 124], 3 * 3),  # on cells' centres
        ([-100, 28, -50, 52], 0),  # outside
    ],
)
def test_scatter_adds_a_location_to_each_cell_once(emulated, box, expected):
    kernels = emulated[torch.float32]
    features, boxes = torch.zeros(1, 1, 20, 20), torch.tensor([[box]], dtype=torch.float32)
    grad_map = torch.zeros_like(features)
    pyramid = Pyramid([features], [boxes], [8.0], (3, 3), grad_maps=[grad_map])
    before = kernels.count_additions()
    kernels.scatter(pyramid, 0, torch.ones(1, 9))
    assert kernels.count_additions() - before == expected
    assert grad_map.count_nonzero() == expected
