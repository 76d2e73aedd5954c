"""RoIConv's fused forward pass on CUDA: when it can run, and how fused_kernel.py is launched.

Nobody has measured it yet, so nothing chooses it by itself. A program takes 64 locations and all outputs: with 128 a
thread's sums and columns do not fit into its registers, on sm_80 and sm_90 (tests/ext/test_fused_compiles.py).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_OUTPUTS = 256  # beyond, a program would sample the same columns again for other outputs
DTYPES = (torch.float16, torch.bfloat16)  # of which tensor cores make products at full rate
OLDEST_CAPABILITY = (8, 0)  # Triton has no tensor-core products for sm_75


@dataclass(frozen=True)
class Tile:
    """What a program works on at once, and with what."""

    locations: int = 64
    channels: int = 32
    num_warps: int = 8
    num_stages: int = 3  # tiles of features and weight that are on their way


TILE = Tile()


@dataclass(frozen=True)
class FusedLevel:
    """One level, laid out for the kernel."""

    map: Tensor  # (N, H, W, C), contiguous
    boxes: Tensor  # (N R, 4) float32, contiguous
    num_rois: int  # of an image
    stride: float  # pixels a cell


def multiply(
    levels: Sequence[FusedLevel], matrix: Tensor, bias: Tensor | None, kernel_size: tuple[int, int], rows: Tensor
) -> None:
    """Write rows (locations of all levels, O): columns @ matrix.T + bias, on PyTorch's current stream.

    matrix: (O, K C), rows contiguous. All on one device and, but for the boxes, in one of DTYPES.
    """
    from aligncli_ext.fused_kernel import roi_conv_kernel

    levels = [level for level in levels if len(level.boxes)]
    if not levels:
        return
    arguments, num_programs = _arguments(levels, matrix, bias, kernel_size, rows)
    options: dict[str, Any] = {"num_warps": TILE.num_warps, "num_stages": TILE.num_stages}  # Triton's own
    with torch.cuda.device_of(rows):
        roi_conv_kernel[(num_programs,)](**arguments, **options)


def _arguments(
    levels: Sequence[FusedLevel], matrix: Tensor, bias: Tensor | None, kernel_size: tuple[int, int], rows: Tensor
) -> tuple[dict[str, Any], int]:
    """The kernel's, and how many programs there are."""
    import triton.language as tl

    counts = [len(level.boxes) for level in levels]
    programs = [-(-count // TILE.locations) for count in counts]
    channels = levels[0].map.shape[3]
    is_large = any(level.map.numel() >= 2**31 for level in levels)
    arguments = {
        "maps": tuple(level.map for level in levels),
        "boxes": tuple(level.boxes for level in levels),
        "heights": tuple(level.map.shape[1] for level in levels),
        "widths": tuple(level.map.shape[2] for level in levels),
        "num_rois": tuple(level.num_rois for level in levels),
        "strides": tuple(float(level.stride) for level in levels),
        "num_locations": tuple(counts),
        "first_rows": tuple(sum(counts[:index]) for index in range(len(levels))),
        "first_programs": tuple(sum(programs[:index]) for index in range(len(levels))),
        "matrix": matrix,
        "bias": matrix if bias is None else bias,
        "rows": rows,
        "channels": channels,
        "out_channels": len(matrix),
        "NUM_LEVELS": len(levels),
        "KERNEL_HEIGHT": kernel_size[0],
        "KERNEL_WIDTH": kernel_size[1],
        "HAS_BIAS": bias is not None,
        "WHOLE_BLOCKS": channels % TILE.channels == 0,
        "OFFSET": tl.int64 if is_large else tl.int32,
        "BLOCK_LOCATIONS": TILE.locations,
        "BLOCK_CHANNELS": TILE.channels,
        "BLOCK_OUTPUTS": max(16, 1 << (len(matrix) - 1).bit_length()),
    }
    return arguments, sum(programs)


@functools.cache
def unavailable_reason(device_index: int) -> str | None:
    """Why a device cannot run the kernel, or None where it can; at first a small problem is computed on it."""
    major, minor = torch.cuda.get_device_capability(device_index)
    if (major, minor) < OLDEST_CAPABILITY:
        return f"the device's compute capability is {major}.{minor}, and Triton has no tensor-core products below 8.0"
    try:
        from triton.errors import TritonError
    except ImportError as error:
        return f"Triton, which comes with CUDA builds of PyTorch for Linux, is missing ({error})"
    try:
        _compute_something(torch.device("cuda", device_index))
    except (TritonError, RuntimeError, OSError) as error:  # no C compiler for its launcher, no room for its cache, ...
        words = str(error).strip() or repr(error)
        return f"Triton does not run here: {words.splitlines()[0]}"
    return None


def _compute_something(device: torch.device) -> None:
    like = torch.ones(1, dtype=torch.float16, device=device)
    level = FusedLevel(like.new_ones(1, 4, 4, 32), torch.zeros(4, 4, device=device), num_rois=4, stride=8.0)
    multiply([level], like.new_ones(16, 32), None, (1, 1), like.new_empty(4, 16))
