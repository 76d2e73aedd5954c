"""How kernels are loaded and launched: a stand-in for the CUDA driver sees what the real one would."""

import contextlib
import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aligncli_ext import cuda
from aligncli_ext.cuda import Chunk, DriverError, load_kernels, unavailable_reason

CONTEXTS = {0: "context of device 0", 1: "context of device 1"}


class StandInDriver:
    """Remembers launches, and which context was current; fails in the calls named in `failing`."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.failing = failing
        self.context: str | None = None
        self.launches: list[dict[str, Any]] = []

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

    def cuLaunchKernel(self, function, *rest):
        *shape, shared_bytes, stream, parameters, extra = rest
        num_parameters = 5 if function.startswith("grad_boxes") else 4
        pointers = (ctypes.c_void_p * num_parameters).from_address(parameters)
        first, *others = (pointers[index] for index in range(num_parameters))
        self.launches.append(
            {
                "function": function,
                "context": self.context,
                "grid": tuple(shape[:3]),
                "block": tuple(shape[3:]),
                "stream": stream,
                "num_locations": Chunk.from_address(first).num_locations,
                "tensors": [ctypes.c_void_p.from_address(other).value for other in others],
            }
        )
        assert (shared_bytes, extra) == (0, 0)
        return self._result("cuLaunchKernel")


@pytest.fixture
def use_driver(monkeypatch):
    """Puts a driver in the place of CUDA's, on a machine with two devices whose current stream is number 7."""

    def use(driver: StandInDriver) -> StandInDriver:
        monkeypatch.setattr(cuda, "importlib", SimpleNamespace(import_module=lambda _: driver))
        monkeypatch.setattr(cuda, "cached_cubin", lambda element_type, architecture: b"cubin")
        monkeypatch.setattr(cuda, "architecture_for", lambda capability: 90)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
        monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda index=None: SimpleNamespace(cuda_stream=7))
        return driver

    load_kernels.cache_clear()
    unavailable_reason.cache_clear()
    yield use
    load_kernels.cache_clear()
    unavailable_reason.cache_clear()


def chunk_of(num_locations: int, channels: int) -> Chunk:
    return Chunk(
        height=10,
        width=10,
        channels=channels,
        kernel_height=3,
        kernel_width=5,
        num_rois=100,
        num_locations=num_locations,
        stride=8,
        extent_y=24,
        extent_x=40,
    )


def test_a_launch_tells_the_driver_device_stream_shape_and_addresses(use_driver):
    driver = use_driver(StandInDriver())
    kernels = load_kernels(torch.bfloat16, 1)
    driver.context = None  # as in a thread of autograd's
    table, boxes = torch.zeros(100, 256, dtype=torch.bfloat16), torch.zeros(100, 4)
    columns, grad_table = torch.zeros(7, 15 * 256, dtype=torch.bfloat16), torch.zeros(100, 256)
    with kernels.on_device():
        kernels.gather(chunk_of(7, 256), table, boxes, columns)
        kernels.scatter(chunk_of(7, 256), columns, boxes, grad_table)
        kernels.grad_boxes(chunk_of(7, 256), columns, table, boxes, grad_table)
    common = {"context": CONTEXTS[1], "stream": 7, "num_locations": 7}
    of_module = f"of cubin in {CONTEXTS[1]}"
    assert driver.launches == [
        {
            **common,
            "function": f"gather_wide {of_module}",
            "grid": (6, 1, 1),  # 7 locations of 3 tap rows, 4 a block
            "block": (32, 4, 1),  # 256 channels, 8 a thread
            "tensors": [table.data_ptr(), boxes.data_ptr(), columns.data_ptr()],
        },
        {
            **common,
            "function": f"scatter_wide {of_module}",
            "grid": (18, 1, 1),  # 7 locations of 5 tap columns, 2 a block
            "block": (64, 2, 1),  # 256 channels, 4 a thread
            "tensors": [columns.data_ptr(), boxes.data_ptr(), grad_table.data_ptr()],
        },
        {
            **common,
            "function": f"grad_boxes_wide {of_module}",
            "grid": (2, 1, 1),  # 7 locations, a warp each
            "block": (32, 4, 1),
            "tensors": [columns.data_ptr(), table.data_ptr(), boxes.data_ptr(), grad_table.data_ptr()],
        },
    ]


def test_every_device_has_its_own_module(use_driver):
    driver = use_driver(StandInDriver())
    for device in (0, 1, 0):
        kernels = load_kernels(torch.float32, device)
        assert kernels is load_kernels(torch.float32, device)
        with kernels.on_device():
            kernels.gather(chunk_of(1, 1), torch.zeros(100, 1), torch.zeros(100, 4), torch.zeros(1, 15))
    assert [launch["function"] for launch in driver.launches] == [
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
        kernels.gather(chunk_of(1, 1), torch.zeros(100, 1), torch.zeros(100, 4), torch.zeros(1, 15))


def test_float64_has_no_kernels_and_says_so(use_driver):
    use_driver(StandInDriver())
    assert unavailable_reason(torch.float64, 0) == (
        "there are no CUDA kernels for torch.float64, only for float32, float16 and bfloat16"
    )
    assert unavailable_reason(torch.float32, 0) is None
