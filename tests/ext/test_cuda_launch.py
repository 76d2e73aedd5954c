"""How kernels are loaded and launched: a stand-in for the CUDA driver sees what the real one would."""

import contextlib
import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from aligncli_ext import cuda, driver, fused
from aligncli_ext.cuda import Chunk, Pyramid, load_kernels, unavailable_reason
from aligncli_ext.driver import DriverError

CONTEXTS = {0: "context of device 0", 1: "context of device 1"}


class StandInDriver:
    """Remembers launches, and which context was current; fails in the calls named in `failing`."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.failing = failing
        self.context: str | None = None
        self.launches: list[dict[str, Any]] = []
        self.attributes: list[tuple[Any, ...]] = []

    def _result(self, name: str, *values: object) -> tuple[object, ...]:
        failed = name in self.failing
        return (SimpleNamespace(value=int(failed), name="CUDA_ERROR_UNKNOWN" if failed else "CUDA_SUCCESS"), *values)

    def cuDeviceGet(self, ordinal):
        return self._result("cuDeviceGet", ordinal)

    def cuDevicePrimaryCtxRetain(self, device):
        return self._result("cuDevicePrimaryCtxRetain", CONTEXTS[device])

    def cuCtxSetCurrent(self, context):
        self.context = context
        return self._result("cuCtxSetCurrent")

    def cuModuleLoadData(self, image):
        return self._result("cuModuleLoadData", f"{image.decode()} in {self.context}")

    def cuModuleGetFunction(self, module, name):
        return self._result("cuModuleGetFunction", f"{name.decode()} of {module}")

    def CUstream(self, handle):
        return handle

    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared bytes")

    def cuFuncSetAttribute(self, function, attribute, value):
        self.attributes.append((function, attribute, value))
        return self._result("cuFuncSetAttribute")

    def cuLaunchKernel(self, function, *rest):
        *shape, shared_bytes, stream, parameters, extra = rest
        types = PARAMETERS[function.split()[0]]
        pointers = (ctypes.c_void_p * len(types)).from_address(parameters)
        assert extra == 0
        self.launches.append(
            {
                "function": function,
                "context": self.context,
                "grid": tuple(shape[:3]),
                "block": tuple(shape[3:]),
                "shared": shared_bytes,
                "stream": stream,
                "arguments": [read(kind, pointers[index]) for index, kind in enumerate(types)],
            }
        )
        return self._result("cuLaunchKernel")


def read(kind: type, address: int) -> Any:
    """An argument; of the levels, the words before the first level's `first`."""
    if kind is Pyramid:
        return list((ctypes.c_void_p * 4).from_address(address))
    value = kind.from_buffer_copy(ctypes.string_at(address, ctypes.sizeof(kind)))
    return (value.first, value.count) if kind is Chunk else getattr(value, "value", value)


CHUNKED = (Pyramid, Chunk, ctypes.c_void_p)
PARAMETERS = {
    "gather_wide": (*CHUNKED, ctypes.c_uint),
    "gather_narrow": (*CHUNKED, ctypes.c_uint),
    "scatter_wide": CHUNKED,
    "grad_boxes_wide": CHUNKED,
    "pack_weight": (fused._WeightFields, ctypes.c_void_p),
    "roi_conv_fused": (Pyramid, fused._ProblemFields),
}


@pytest.fixture
def use_driver(monkeypatch):
    """Puts a driver in the place of CUDA's, on a machine with two devices whose current stream is number 7."""

    def use(stand_in: StandInDriver) -> StandInDriver:
        monkeypatch.setattr(driver, "importlib", SimpleNamespace(import_module=lambda _: stand_in))
        for module in (cuda, fused):
            monkeypatch.setattr(module, "cached_cubin", lambda program: b"cubin")
        monkeypatch.setattr(cuda, "architecture_for", lambda capability: 90)
        properties = SimpleNamespace(multi_processor_count=5)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda index=None: SimpleNamespace(cuda_stream=7))
        return stand_in

    caches = (load_kernels, unavailable_reason, fused.load_kernel, fused.unavailable_reason)
    for cache in caches:
        cache.cache_clear()
    yield use
    for cache in caches:
        cache.cache_clear()


def pyramid_of(dtype: torch.dtype, channels: int, *, with_gradients: bool = False) -> tuple[Pyramid, list[Tensor]]:
    """One level of two images with 50 boxes each, for 3 x 5 taps; and the tensors it points to."""
    level = torch.zeros(2, 10, 10, channels, dtype=dtype).permute(0, 3, 1, 2)
    boxes, grad_map = torch.zeros(2, 50, 4), torch.zeros(2, 10, 10, channels).permute(0, 3, 1, 2)
    grad_boxes = torch.zeros(2, 50, 4)
    gradients: dict[str, Any] = {"grad_maps": [grad_map], "grad_boxes": [grad_boxes]} if with_gradients else {}
    return Pyramid([level], [boxes], [8.0], (3, 5), **gradients), [level, boxes, grad_map, grad_boxes]


def test_a_launch_tells_the_driver_device_stream_shape_and_addresses(use_driver):
    stand_in = use_driver(StandInDriver())
    kernels = load_kernels(torch.bfloat16, 1)
    stand_in.context = None  # as in a thread of autograd's
    pyramid, tensors = pyramid_of(torch.bfloat16, 256, with_gradients=True)
    columns = torch.zeros(7, 15 * 256, dtype=torch.bfloat16)
    with kernels.on_device():
        kernels.gather(pyramid, 60, columns)
        kernels.scatter(pyramid, 60, columns)
        kernels.grad_boxes(pyramid, 60, columns)
    shared = [[tensor.data_ptr() for tensor in tensors], (60, 7), columns.data_ptr()]
    common = {"context": CONTEXTS[1], "stream": 7}
    of_module = f"of cubin in {CONTEXTS[1]}"
    assert stand_in.attributes == []
    assert stand_in.launches == [
        {
            **common,
            "function": f"gather_wide {of_module}",
            "grid": (2, 1, 1),  # 5 locations of 3 tap rows, for 16 items
            "block": (32, 16, 1),  # 256 channels, 8 a thread
            "shared": 5 * (3 * 32 + 5 * 16),  # of each, 3 rows and 5 columns
            "arguments": [*shared, 5],
        },
        {
            **common,
            "function": f"scatter_wide {of_module}",
            "grid": (18, 1, 1),  # 7 locations of 5 tap columns, 2 a block
            "block": (64, 2, 1),  # 256 channels, 4 a thread
            "shared": 0,
            "arguments": shared,
        },
        {
            **common,
            "function": f"grad_boxes_wide {of_module}",
            "grid": (2, 1, 1),  # 7 locations, a warp each
            "block": (32, 4, 1),
            "shared": 0,
            "arguments": shared,
        },
    ]


def test_what_is_not_wanted_has_no_address(use_driver):
    stand_in = use_driver(StandInDriver())
    pyramid, (level, boxes, *_) = pyramid_of(torch.float32, 4)
    load_kernels(torch.float32, 0).gather(pyramid, 0, torch.zeros(1, 60))
    assert stand_in.launches[0]["arguments"][0] == [level.data_ptr(), boxes.data_ptr(), None, None]


def test_the_fused_kernel_packs_the_weight_and_has_a_block_for_each_multiprocessor(use_driver):
    stand_in = use_driver(StandInDriver())
    kernel = fused.load_kernel(torch.float16, 128, 1)
    assert [(name, value) for _, name, value in stand_in.attributes] == [("shared bytes", 227 << 10)] * 2
    pyramid, (level, boxes, *_) = pyramid_of(torch.float16, 64)
    weight = torch.zeros(72, 3, 5, 64, dtype=torch.float16).permute(0, 3, 1, 2)
    rows = torch.zeros(100, 72, dtype=torch.float16)
    with kernel.on_device():
        kernel.multiply(pyramid, weight, None, rows)
    pack, multiply = stand_in.launches
    assert pack["function"].startswith("pack_weight")
    assert pack["grid"] == (128 * 15 * 64 // 8 // 256, 1, 1)  # 16 bytes a thread
    fields, _ = pack["arguments"]
    assert fields.numbers == weight.data_ptr()
    assert list(fields.strides) == [960, 1, 320, 64]
    assert list(fields.shape) == [72, 64, 3, 5]
    assert multiply["grid"] == (1, 1, 1)  # a tile of 128 locations
    assert multiply["block"] == (512, 1, 1)
    assert multiply["shared"] == fused._shared_bytes(8, 128, 3)
    levels, problem = multiply["arguments"]
    assert levels == [level.data_ptr(), boxes.data_ptr(), None, None]
    assert (problem.weight, problem.bias, problem.rows) == (pack["arguments"][1], None, rows.data_ptr())
    assert (problem.num_locations, problem.out_channels, problem.num_stages) == (100, 72, 3)


def test_the_fused_kernels_blocks_go_on_with_other_tiles(use_driver):
    stand_in = use_driver(StandInDriver())
    boxes = torch.zeros(1, 6 * 128, 4)
    pyramid = Pyramid([torch.zeros(1, 64, 2, 2, dtype=torch.float16)], [boxes], [8.0], (1, 1))
    rows, bias = torch.zeros(6 * 128, 8, dtype=torch.float16), torch.zeros(8, dtype=torch.float16)
    kernel = fused.load_kernel(torch.float16, 64, 0)
    kernel.multiply(pyramid, torch.zeros(8, 64, 1, 1, dtype=torch.float16), bias, rows)
    multiply = stand_in.launches[-1]
    assert multiply["grid"] == (5, 1, 1)  # multiprocessors
    assert multiply["arguments"][1].bias == bias.data_ptr()


def test_the_fused_kernel_is_hoppers(use_driver, monkeypatch):
    use_driver(StandInDriver())
    assert fused.unavailable_reason(0) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    assert fused.unavailable_reason(1) == (
        "the device's compute capability is 8.0, and the kernel is written for Hopper's 9.0"
    )


def test_a_driver_that_does_not_load_the_fused_kernel_is_a_reason(use_driver):
    use_driver(StandInDriver(failing=("cuFuncSetAttribute",)))
    reason = "the fused kernel cannot be loaded: a call of the CUDA driver failed: CUDA_ERROR_UNKNOWN"
    assert fused.unavailable_reason(0) == reason


def test_every_device_has_its_own_module(use_driver):
    stand_in = use_driver(StandInDriver())
    pyramid, _ = pyramid_of(torch.float32, 1)
    for device in (0, 1, 0):
        kernels = load_kernels(torch.float32, device)
        assert kernels is load_kernels(torch.float32, device)
        with kernels.on_device():
            kernels.gather(pyramid, 0, torch.zeros(1, 15))
    assert [launch["function"] for launch in stand_in.launches] == [
        f"gather_narrow of cubin in {CONTEXTS[device]}" for device in (0, 1, 0)
    ]


def test_a_driver_that_does_not_load_the_kernels_is_a_reason(use_driver):
    use_driver(StandInDriver(failing=("cuModuleLoadData",)))
    reason = "the kernels cannot be loaded: a call of the CUDA driver failed: CUDA_ERROR_UNKNOWN"
    assert unavailable_reason(torch.float16, 0) == reason


def test_a_launch_that_fails_raises(use_driver):
    use_driver(StandInDriver(failing=("cuLaunchKernel",)))
    kernels = load_kernels(torch.float32, 0)
    with pytest.raises(DriverError, match="CUDA_ERROR_UNKNOWN"):
        kernels.gather(pyramid_of(torch.float32, 1)[0], 0, torch.zeros(1, 15))


def test_float64_has_no_kernels_and_says_so(use_driver):
    use_driver(StandInDriver())
    assert unavailable_reason(torch.float64, 0) == (
        "there are no CUDA kernels for torch.float64, only for float32, float16 and bfloat16"
    )
    assert unavailable_reason(torch.float32, 0) is None
