"""RoIConv's CUDA kernels as Python functions: launched on PyTorch's current stream, without waiting for them.

Tensors are on one device: maps (N, C, H, W) with channels-last memory, boxes (N, R, 4) contiguous in float32, columns
(locations of the chunk, K C) in the maps' dtype; gradients of maps, which lie as the maps do, and of boxes are float32.
"""

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from aligncli_ext.driver import DriverError, Module
from aligncli_ext.nvrtc import CudaUnavailable, Program, architecture_for, cached_cubin

_GATHER_THREADS = 512  # of a block
_GATHER_LOCATIONS = 16  # of a block, where there are enough for
_GATHER_BLOCKS = 512  # which keep a large GPU busy
_OTHER_THREADS = 128
_ACCESS_BYTES = 16
_ROW_BYTES, _COLUMN_BYTES = 32, 16  # of RowRecord and AxisRecord
_MOST_RECORD_BYTES = 16 << 10  # of a block
_KERNELS = tuple(f"{name}_{width}" for name in ("gather", "scatter", "grad_boxes") for width in ("wide", "narrow"))

# What levels.cuh counts in 32 bits, and the shared memory that every block may have.
MOST_LEVELS = 32
MOST_LOCATIONS = 2**31
MOST_ROW_NUMBERS = 2**32  # of a row of a map, all channels
MOST_KERNEL_SIDES = 48 * 1024 // _ROW_BYTES  # height + width


# Level and Levels in levels.cuh, where the fields are explained.
_LEVEL = struct.Struct("@4P2I2i3f4x")
_AFTER_LEVELS = struct.Struct("@4i")


class Chunk(ctypes.Structure):
    """The consecutive locations that a launch works on; the same structure as in grid.cuh."""

    _fields_ = [("first", ctypes.c_uint), ("count", ctypes.c_uint)]


class Pyramid:
    """The levels as the kernels are told about them: addresses, so the tensors must outlive the launches.

    maps, boxes, strides: of each level, at most MOST_LEVELS. grad_maps, grad_boxes: what the kernels add to and write,
    None where that is not wanted.
    """

    def __init__(
        self,
        maps: Sequence[Tensor],
        boxes: Sequence[Tensor],
        strides: Sequence[float],
        kernel_size: tuple[int, int],
        *,
        grad_maps: Sequence[Tensor | None] = (),
        grad_boxes: Sequence[Tensor | None] = (),
    ) -> None:
        kernel_height, kernel_width = kernel_size
        self.channels = maps[0].shape[1]
        self.kernel_size = kernel_size
        self.num_levels = len(maps)
        self.num_locations = 0
        self.fields = (ctypes.c_char * (MOST_LEVELS * _LEVEL.size + _AFTER_LEVELS.size))()
        self._is_aligned = True
        for index, (level, level_boxes, stride) in enumerate(zip(maps, boxes, strides)):
            num_images, num_rois, _ = level_boxes.shape
            *_, height, width = level.shape
            address = level.data_ptr()
            _LEVEL.pack_into(
                self.fields,
                index * _LEVEL.size,
                address,
                level_boxes.data_ptr(),
                _address(grad_maps[index]) if grad_maps else 0,
                _address(grad_boxes[index]) if grad_boxes else 0,
                self.num_locations,
                max(num_rois, 1),  # divides
                height,
                width,
                stride,
                kernel_height * stride,
                kernel_width * stride,
            )
            self.num_locations += num_images * num_rois
            self._is_aligned &= address % _ACCESS_BYTES == 0
        _AFTER_LEVELS.pack_into(
            self.fields, MOST_LEVELS * _LEVEL.size, self.num_levels, self.channels, kernel_height, kernel_width
        )

    def fits_wide_accesses(self, columns: Tensor) -> bool:
        """Whether columns and maps, which have the same dtype, can be accessed 16 bytes at a time."""
        whole = self.channels * columns.itemsize % _ACCESS_BYTES == 0
        return whole and self._is_aligned and columns.data_ptr() % _ACCESS_BYTES == 0


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


# Module.launch
Launch = Callable[[str, tuple[int, int], tuple[int, int], int, Sequence[Any]], None]


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

    def gather(self, pyramid: Pyramid, first: int, columns: Tensor) -> None:
        """Write the columns of as many locations as they have rows, from location `first` on."""
        wide = pyramid.fits_wide_accesses(columns)
        count = columns.shape[0]
        threads = _threads_for(pyramid.channels, _ACCESS_BYTES // columns.itemsize if wide else 1, _GATHER_THREADS)
        num_locations = _locations_of_block(count, threads[1], pyramid.kernel_size)
        shared_bytes = num_locations * _record_bytes(pyramid.kernel_size)
        num_blocks = -(-count // num_locations)
        self._run("gather", wide, num_blocks, threads, shared_bytes, pyramid, first, columns, num_locations)

    def scatter(self, pyramid: Pyramid, first: int, grad_columns: Tensor) -> None:
        """Add the columns' gradient to the maps' that are wanted, in no particular order."""
        wide = pyramid.channels % 4 == 0 and grad_columns.data_ptr() % _ACCESS_BYTES == 0
        threads = _threads_for(pyramid.channels, 4 if wide else 1, _OTHER_THREADS)
        num_blocks = -(-grad_columns.shape[0] * pyramid.kernel_size[1] // threads[1])
        self._run("scatter", wide, num_blocks, threads, 0, pyramid, first, grad_columns)

    def grad_boxes(self, pyramid: Pyramid, first: int, grad_columns: Tensor) -> None:
        """Write the rows of these locations in the boxes' gradients that are wanted."""
        wide = pyramid.fits_wide_accesses(grad_columns)
        threads = (self._warp_size, _OTHER_THREADS // self._warp_size)
        num_blocks = -(-grad_columns.shape[0] // threads[1])
        self._run("grad_boxes", wide, num_blocks, threads, 0, pyramid, first, grad_columns)

    def _run(
        self,
        name: str,
        wide: bool,
        num_blocks: int,
        threads: tuple[int, int],
        shared_bytes: int,
        pyramid: Pyramid,
        first: int,
        columns: Tensor,
        *numbers: int,
    ) -> None:
        chunk, address = Chunk(first, columns.shape[0]), ctypes.c_void_p(columns.data_ptr())
        arguments = [pyramid.fields, chunk, address, *map(ctypes.c_uint, numbers)]
        self._launch(f"{name}_{'wide' if wide else 'narrow'}", (num_blocks, 1), threads, shared_bytes, arguments)


def _locations_of_block(num_locations: int, items: int, kernel_size: tuple[int, int]) -> int:
    """Of gather: enough for all items at once, and no more than there is room for in shared memory."""
    wanted = max(1, min(_GATHER_LOCATIONS, num_locations // _GATHER_BLOCKS), items // kernel_size[0])
    return max(1, min(wanted, _MOST_RECORD_BYTES // _record_bytes(kernel_size)))


def _record_bytes(kernel_size: tuple[int, int]) -> int:
    """Of a location."""
    return kernel_size[0] * _ROW_BYTES + kernel_size[1] * _COLUMN_BYTES


def _threads_for(channels: int, width: int, threads: int) -> tuple[int, int]:
    """Of a block's threads those along the channels of an item, and items: a power of two each."""
    along_channels = min(threads, 1 << (-(-channels // width) - 1).bit_length())
    return along_channels, threads // along_channels


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
    cubin = cached_cubin(chunked_program(str(dtype).removeprefix("torch."), architecture))
    try:
        module = Module(cubin, device_index, _KERNELS)
    except DriverError as error:
        raise CudaUnavailable(f"the kernels cannot be loaded: {error}") from error
    return Kernels(module.launch, module.on_device)


def chunked_program(element_type: str, architecture: int) -> Program:
    """The kernels for a member of ELEMENT_TYPES and an architecture: 75 for sm_75."""
    return Program("roi_conv_cuda.cu", element_type, f"sm_{architecture}")
