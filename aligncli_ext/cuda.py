"""RoIConv's CUDA kernels as Python functions: launched on PyTorch's current stream, without waiting for them.

Tensors are contiguous and on one device: a table (cells, C) of channels-last features, boxes (locations of all images,
4) in float32, columns (locations of the chunk, K C) in the features' dtype; gradients of tables and boxes are float32.
"""

import ctypes
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from aligncli_ext.nvrtc import CudaUnavailable, architecture_for, cached_cubin

_THREADS_A_BLOCK = 128
_ACCESS_BYTES = 16
_KERNELS = tuple(f"{name}_{width}" for name in ("gather", "scatter", "grad_boxes") for width in ("wide", "narrow"))


class DriverError(RuntimeError):
    """The CUDA driver refused a call."""


class Chunk(ctypes.Structure):
    """Consecutive locations of one level; the same structure as in roi_conv_cuda.cu, where the fields are explained."""

    _fields_ = [
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("kernel_height", ctypes.c_int),
        ("kernel_width", ctypes.c_int),
        ("num_rois", ctypes.c_int),
        ("first_image", ctypes.c_int),
        ("first_roi", ctypes.c_int),
        ("num_locations", ctypes.c_int),
        ("stride", ctypes.c_float),
        ("extent_y", ctypes.c_float),
        ("extent_x", ctypes.c_float),
    ]


# Launches a kernel by its name: the number of blocks, threads of a block (x, y), and arguments in C's types.
Launch = Callable[[str, int, tuple[int, int], Sequence[Any]], None]


class Kernels:
    """The kernels of one element type on one device.

    on_device: makes that device the current one. warp_size: how many threads sum a location's box gradient.
    """

    def __init__(
        self, launch: Launch, on_device: Callable[[], AbstractContextManager[None]], *, warp_size: int = 32
    ) -> None:
        self._launch = launch
        self.on_device = on_device
        self._warp_size = warp_size

    def gather(self, chunk: Chunk, table: Tensor, boxes: Tensor, columns: Tensor) -> None:
        """Write the chunk's columns."""
        wide = _fits_wide_accesses(chunk, table, columns)
        width = _ACCESS_BYTES // table.itemsize if wide else 1
        threads = _threads_for(chunk.channels, width)
        self._run("gather", wide, chunk.num_locations * chunk.kernel_height, threads, chunk, table, boxes, columns)

    def scatter(self, chunk: Chunk, grad_columns: Tensor, boxes: Tensor, grad_table: Tensor) -> None:
        """Add the columns' gradient to the table's, in no particular order."""
        wide = _fits_wide_accesses(chunk, grad_columns, grad_table)
        threads = _threads_for(chunk.channels, 4 if wide else 1)
        num_items = chunk.num_locations * chunk.kernel_width
        self._run("scatter", wide, num_items, threads, chunk, grad_columns, boxes, grad_table)

    def grad_boxes(self, chunk: Chunk, grad_columns: Tensor, table: Tensor, boxes: Tensor, result: Tensor) -> None:
        """Write the chunk's rows of the boxes' gradient."""
        wide = _fits_wide_accesses(chunk, grad_columns, table)
        threads = (self._warp_size, _THREADS_A_BLOCK // self._warp_size)
        self._run("grad_boxes", wide, chunk.num_locations, threads, chunk, grad_columns, table, boxes, result)

    def _run(
        self, name: str, wide: bool, num_items: int, threads: tuple[int, int], chunk: Chunk, *tensors: Tensor
    ) -> None:
        arguments = [chunk, *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)]
        num_blocks = -(-num_items // threads[1])
        self._launch(f"{name}_{'wide' if wide else 'narrow'}", num_blocks, threads, arguments)


def _fits_wide_accesses(chunk: Chunk, *tensors: Tensor) -> bool:
    return all(
        chunk.channels * tensor.itemsize % _ACCESS_BYTES == 0 and tensor.data_ptr() % _ACCESS_BYTES == 0
        for tensor in tensors
    )


def _threads_for(channels: int, width: int) -> tuple[int, int]:
    """Along the channels of an item, and items: a power of two each."""
    along_channels = min(_THREADS_A_BLOCK, 1 << (-(-channels // width) - 1).bit_length())
    return along_channels, _THREADS_A_BLOCK // along_channels


@functools.cache
def unavailable_reason(dtype: torch.dtype, device_index: int) -> str | None:
    """Why `load_kernels` cannot, or None where it can; at first it compiles them."""
    try:
        load_kernels(dtype, device_index)
    except CudaUnavailable as error:
        return str(error)
    return None


@functools.cache
def load_kernels(dtype: torch.dtype, device_index: int) -> Kernels:
    """The kernels for features of a dtype, on a device, compiled at first. Raises CudaUnavailable."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise CudaUnavailable(f"there are no CUDA kernels for {dtype}, only for float32, float16 and bfloat16")
    architecture = architecture_for(torch.cuda.get_device_capability(device_index))
    cubin = cached_cubin(str(dtype).removeprefix("torch."), architecture)
    try:
        return _load(cubin, device_index)
    except DriverError as error:
        raise CudaUnavailable(f"the kernels cannot be loaded: {error}") from error


def _load(cubin: bytes, device_index: int) -> Kernels:
    driver = importlib.import_module("cuda.bindings.driver")
    # The runtime API's context, which PyTorch uses; autograd's threads may come here before it is current in them.
    with torch.cuda.device(device_index):
        torch.cuda.current_stream()  # PyTorch sets itself up
        context = _check(driver.cuDevicePrimaryCtxRetain(_check(driver.cuDeviceGet(device_index))))
        _check(driver.cuCtxSetCurrent(context))
        module = _check(driver.cuModuleLoadData(cubin))
        functions = {name: _check(driver.cuModuleGetFunction(module, name.encode())) for name in _KERNELS}

    @contextmanager
    def on_device() -> Iterator[None]:
        with torch.cuda.device(device_index):
            _check(driver.cuCtxSetCurrent(context))
            yield

    def launch(name: str, num_blocks: int, threads: tuple[int, int], arguments: Sequence[Any]) -> None:
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        stream = driver.CUstream(torch.cuda.current_stream(device_index).cuda_stream)
        grid, block = (num_blocks, 1, 1), (*threads, 1)
        _check(driver.cuLaunchKernel(functions[name], *grid, *block, 0, stream, ctypes.addressof(pointers), 0))

    return Kernels(launch, on_device)


def _check(results: tuple[Any, ...]) -> Any:
    """The value behind the status that every call of the bindings returns first."""
    status, *values = results
    if status.value != 0:
        raise DriverError(f"a call of the CUDA driver failed: {status.name}")
    return values[0] if values else None
