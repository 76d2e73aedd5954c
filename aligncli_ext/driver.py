"""CUDA's driver: machine code loaded on a device, and launched on PyTorch's current stream without waiting for it."""

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

# A block may have this much shared memory without being asked for more.
USUAL_SHARED_BYTES = 48 << 10


class DriverError(RuntimeError):
    """The CUDA driver refused a call."""


class Module:
    """Kernels on one device.

    cubin: machine code with kernels of these names. shared_bytes: the most shared memory that a launch asks for.
    Raises DriverError.
    """

    def __init__(
        self, cubin: bytes, device_index: int, names: Sequence[str], *, shared_bytes: int = USUAL_SHARED_BYTES
    ) -> None:
        self._device_index = device_index
        self._driver = driver = importlib.import_module("cuda.bindings.driver")
        # The runtime API's context, which PyTorch uses; autograd's threads may come here before it is current in them.
        with torch.cuda.device(device_index):
            torch.cuda.current_stream()  # PyTorch sets itself up
            self._context = _check(driver.cuDevicePrimaryCtxRetain(_check(driver.cuDeviceGet(device_index))))
            _check(driver.cuCtxSetCurrent(self._context))
            module = _check(driver.cuModuleLoadData(cubin))
            self._functions = {name: _check(driver.cuModuleGetFunction(module, name.encode())) for name in names}
            if shared_bytes > USUAL_SHARED_BYTES:
                attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                for function in self._functions.values():
                    _check(driver.cuFuncSetAttribute(function, attribute, shared_bytes))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Makes the device the current one."""
        is_current = torch.cuda.current_device() == self._device_index  # the rule, and entering a device takes its time
        with nullcontext() if is_current else torch.cuda.device(self._device_index):
            _check(self._driver.cuCtxSetCurrent(self._context))
            yield

    def launch(
        self, name: str, grid: tuple[int, int], block: tuple[int, int], shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        """Launch a kernel; `arguments` are ctypes' values, in the kernel's order. Raises DriverError."""
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        stream = self._driver.CUstream(torch.cuda.current_stream(self._device_index).cuda_stream)
        shape = (*grid, 1, *block, 1)
        _check(
            self._driver.cuLaunchKernel(
                self._functions[name], *shape, shared_bytes, stream, ctypes.addressof(pointers), 0
            )
        )


def _check(results: tuple[Any, ...]) -> Any:
    """The value behind the status that every call of the bindings returns first."""
    status, *values = results
    if status.value != 0:
        raise DriverError(f"a call of the CUDA driver failed: {status.name}")
    return values[0] if values else None
