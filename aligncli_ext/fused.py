"""RoIConv's forward pass as one kernel for Hopper (csrc/roi_conv_fused.cu): what it serves, and how it is launched.

For more outputs than a block makes it would sample the same columns again, and be slower than csrc/roi_conv_cuda.cu's
chunks of columns are (docs/results/roi_conv.md).
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from aligncli_ext.cuda import Launch, Pyramid
from aligncli_ext.driver import DriverError, Module
from aligncli_ext.nvrtc import CudaUnavailable, Program, cached_cubin

DTYPES = (torch.float16, torch.bfloat16)  # of which tensor cores make products at full rate
CAPABILITY = (9, 0)  # wgmma is Hopper's own
OUTPUTS = (64, 128, 256)  # that a block makes: all of a layer's
MOST_OUTPUTS = OUTPUTS[-1]
STEP_CHANNELS = 64
OUTPUT_MULTIPLE = 8
ACCESS_BYTES = 16

_LOCATIONS = 128  # of a tile
_THREADS = 512
_PACK_THREADS = 256
# Of an instruction: one that makes 256 names more registers than ptxas allows _THREADS, whatever they give away.
_MOST_PART_OUTPUTS = 128
_STAGES = 3  # steps that are made, wait or are multiplied; more of them leave less of a cache
_FEWEST_STAGES = 2
_MOST_SHARED_BYTES = 227 << 10  # of a block on Hopper
_MOST_IMAGE_BYTES = 2**32
_OTHER_SHARED_BYTES = 1024 + 128 + 8 * _LOCATIONS  # alignment, barriers, addresses


class _WeightFields(ctypes.Structure):
    """Weight in roi_conv_fused.cu, where the fields are explained."""

    _fields_ = [
        ("numbers", ctypes.c_void_p),
        ("strides", ctypes.c_longlong * 4),
        ("shape", ctypes.c_int * 4),
    ]


class _ProblemFields(ctypes.Structure):
    """Problem in fused_stages.cuh, where the fields are explained."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("num_locations", ctypes.c_uint),
        ("out_channels", ctypes.c_int),
        ("num_stages", ctypes.c_int),
    ]


class FusedKernel:
    """The kernel of one element type and a number of outputs a block, on one device with some multiprocessors."""

    def __init__(
        self,
        launch: Launch,
        on_device: Callable[[], AbstractContextManager[None]],
        *,
        outputs: int,
        num_multiprocessors: int,
    ) -> None:
        self._launch = launch
        self.on_device = on_device
        self._outputs = outputs
        self._num_multiprocessors = num_multiprocessors

    def multiply(self, pyramid: Pyramid, weight: Tensor, bias: Tensor | None, rows: Tensor) -> None:
        """Write rows (locations, O): columns @ (weight as a matrix).T + bias, on PyTorch's current stream.

        weight: (O, C, kh, kw), in any memory format. bias: (O,), contiguous and at a multiple of ACCESS_BYTES, as rows.
        All in the kernel's type, on its device, and served.
        """
        out_channels, num_locations = weight.shape[0], pyramid.num_locations
        if not num_locations:
            return
        packed = self._pack(weight)
        sides = sum(pyramid.kernel_size)
        num_stages = most_stages(sides, self._outputs)
        problem = _ProblemFields(
            packed.data_ptr(),
            None if bias is None else bias.data_ptr(),
            rows.data_ptr(),
            num_locations,
            out_channels,
            num_stages,
        )
        tiles = -(-num_locations // _LOCATIONS)
        grid = (min(tiles, self._num_multiprocessors), 1)
        shared_bytes = _shared_bytes(sides, self._outputs, num_stages)
        self._launch("roi_conv_fused", grid, (_THREADS, 1), shared_bytes, [pyramid.fields, problem])

    def _pack(self, weight: Tensor) -> Tensor:
        """In the order in which the kernel takes it."""
        _, channels, kernel_height, kernel_width = weight.shape
        packed = weight.new_empty(self._outputs * channels * kernel_height * kernel_width)
        fields = _WeightFields(weight.data_ptr(), weight.stride(), weight.shape)
        num_pieces = packed.numel() * packed.itemsize // ACCESS_BYTES
        arguments = [fields, ctypes.c_void_p(packed.data_ptr())]
        self._launch("pack_weight", (-(-num_pieces // _PACK_THREADS), 1), (_PACK_THREADS, 1), 0, arguments)
        return packed


def serves(maps: Sequence[Tensor], weight: Tensor) -> bool:
    """Whether the kernel computes such a layer: its channels, outputs and kernel, and where its maps lie."""
    return _serves_layer(weight.dtype, weight.shape) and all(
        level.data_ptr() % ACCESS_BYTES == 0 and _image_bytes(level) < _MOST_IMAGE_BYTES for level in maps
    )


@functools.cache
def _serves_layer(dtype: torch.dtype, weight_shape: tuple[int, int, int, int]) -> bool:
    """Wherever its maps lie; kept, as asking takes as long as a launch."""
    out_channels, channels, kernel_height, kernel_width = weight_shape
    return (
        dtype in DTYPES
        and channels % STEP_CHANNELS == 0
        and out_channels <= MOST_OUTPUTS
        and out_channels % OUTPUT_MULTIPLE == 0
        and most_stages(kernel_height + kernel_width, outputs_for(out_channels)) >= _FEWEST_STAGES
    )


def _image_bytes(level: Tensor) -> int:
    _, channels, height, width = level.shape
    return channels * height * width * level.itemsize


def outputs_for(out_channels: int) -> int:
    """Of OUTPUTS the fewest that hold all of a served layer's."""
    return next(outputs for outputs in OUTPUTS if out_channels <= outputs)


def most_stages(kernel_sides: int, outputs: int) -> int:
    """As many as there is shared memory for, beside the taps of a kernel of this height + width."""
    room = _MOST_SHARED_BYTES - _shared_bytes(kernel_sides, outputs, 0)
    return max(0, min(_STAGES, room // _stage_bytes(outputs)))


def _stage_bytes(outputs: int) -> int:
    return 2 * STEP_CHANNELS * (_LOCATIONS + outputs)


def _shared_bytes(kernel_sides: int, outputs: int, num_stages: int) -> int:
    return _OTHER_SHARED_BYTES + 16 * kernel_sides * _LOCATIONS + num_stages * _stage_bytes(outputs)


@functools.cache
def unavailable_reason(device_index: int) -> str | None:
    """Why a device cannot run the kernel, or None where it can; at first it is compiled."""
    major, minor = torch.cuda.get_device_capability(device_index)
    if (major, minor) != CAPABILITY:
        return f"the device's compute capability is {major}.{minor}, and the kernel is written for Hopper's 9.0"
    try:
        load_kernel(DTYPES[0], OUTPUTS[0], device_index)
    except CudaUnavailable as error:
        return str(error)
    return None


@functools.cache
def load_kernel(dtype: torch.dtype, outputs: int, device_index: int) -> FusedKernel:
    """The kernel for one of DTYPES and of OUTPUTS, on a device, compiled at first. Raises CudaUnavailable."""
    cubin = cached_cubin(fused_program(str(dtype).removeprefix("torch."), outputs))
    try:
        names = ("roi_conv_fused", "pack_weight")
        module = Module(cubin, device_index, names, shared_bytes=_MOST_SHARED_BYTES)
    except DriverError as error:
        raise CudaUnavailable(f"the fused kernel cannot be loaded: {error}") from error
    count = torch.cuda.get_device_properties(device_index).multi_processor_count
    return FusedKernel(module.launch, module.on_device, outputs=outputs, num_multiprocessors=count)


def fused_program(element_type: str, outputs: int) -> Program:
    """The kernel for float16 or bfloat16 and one of OUTPUTS."""
    header = ("wgmma.cuh", _wgmma_header(element_type, min(outputs, _MOST_PART_OUTPUTS)))
    return Program("roi_conv_fused.cu", element_type, "sm_90a", header, (f"ALIGNCLI_OUTPUTS={outputs}",))


def _wgmma_header(element_type: str, outputs: int) -> str:
    """PART_OUTPUTS: `outputs`; multiply_add and wait_for_products.

    multiply_add: sums (64, outputs) += a (64, 16) b (outputs, 16)^T, tiles given by descriptors.

    The instruction names every register of the sums, half as many a thread as there are outputs.
    """
    count = outputs // 2
    kind = {"float16": "f16", "bfloat16": "bf16"}[element_type]
    registers = ", ".join(f"%{index}" for index in range(count))
    sums = ", ".join(f'"+f"(sums[{index}])' for index in range(count))
    instruction = f"wgmma.mma_async.sync.aligned.m64n{outputs}k16.f32.{kind}.{kind}"
    return f"""#pragma once
namespace aligncli {{

constexpr int PART_OUTPUTS = {outputs};

// Without `adds` what the sums were is forgotten.
ALIGNCLI_DEVICE void multiply_add(float (&sums)[{count}], unsigned long long a, unsigned long long b, int adds) {{
  asm volatile("{{ .reg .pred adds; setp.ne.b32 adds, %{count + 2}, 0; "
               "{instruction} {{{registers}}}, %{count}, %{count + 1}, adds, 1, 1, 0, 0; }}"
               : {sums}
               : "l"(a), "l"(b), "r"(adds));
}}

ALIGNCLI_DEVICE void wait_for_products(float (&sums)[{count}]) {{
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {sums} :: "memory");
}}

}}  // namespace aligncli
"""
