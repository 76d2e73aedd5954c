"""RoIConv on the CPU with our own matrix products too, in float32: threads that never wait for each other.

A thread samples one tap of some locations, multiplies, and goes on (aligncli_ext/csrc/tiles_cpu.h). A library's product
of a chunk of columns (native_columns.py) is shared out among the threads, which wait for each other a chunk.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aligncli.ops.native_parts import KernelRows, Level, groups_of_kernel_rows

PANELS = {"AVX2": 16, "AVX512": 32}  # columns of a matrix that lie together: two vectors, as in tiles_cpu.h
MATRIX_BYTES = 4 << 20  # of the weight at a time, in panels: a copy


def tiles_serve(weight: Tensor) -> bool:
    """Whether they are there for this type and machine, as PyTorch found it or was told (ATEN_CPU_CAPABILITY)."""
    return weight.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() in PANELS


def panel_width() -> int:
    """Of this machine."""
    return PANELS[torch.backends.cpu.get_cpu_capability()]


def forward(levels: Sequence[Level], weight: Tensor, bias: Tensor | None) -> Tensor:
    """As native.forward."""
    rows = weight.new_empty(sum(level.num_locations() for level in levels), weight.shape[0])
    bias = None if bias is None else bias.detach().contiguous()
    for kernel in groups_of_kernel_rows(weight, MATRIX_BYTES):
        _multiply(levels, kernel, weight, bias, rows)
    return rows


def _multiply(levels: Sequence[Level], kernel: KernelRows, weight: Tensor, bias: Tensor | None, rows: Tensor) -> None:
    """The share of these kernel rows: the first ones set the rows, with the bias, others add to them."""
    panels = _panels(kernel.of(weight).permute(2, 3, 1, 0))
    for level, own in zip(levels, _split(rows, levels)):
        adds = kernel.begin > 0
        torch.ops.aligncli_ext.multiply.default(level.map, level.boxes, *kernel.place(level), panels, bias, adds, own)


def add_map_gradients(
    grad_rows: Tensor, levels: Sequence[Level], weight: Tensor, grad_maps: Sequence[Tensor | None]
) -> None:
    """Add to the maps' gradients (N, H, W, C) that are wanted. grad_rows: (sum of N R_l, O), contiguous."""
    for kernel in groups_of_kernel_rows(weight, MATRIX_BYTES):
        _spread(grad_rows, levels, kernel, weight, grad_maps)


def _spread(
    grad_rows: Tensor,
    levels: Sequence[Level],
    kernel: KernelRows,
    weight: Tensor,
    grad_maps: Sequence[Tensor | None],
) -> None:
    panels = _panels(kernel.of(weight).permute(2, 3, 0, 1))
    for level, grads, grad_map in zip(levels, _split(grad_rows, levels), grad_maps):
        if grad_map is not None:
            torch.ops.aligncli_ext.spread.default(grads, level.boxes, *kernel.place(level), panels, grad_map)


def add_weight_gradient(grad_rows: Tensor, levels: Sequence[Level], grad_weight: Tensor) -> None:
    """Add to the weight's gradient (O, C, kh, kw), channels-last. grad_rows: (sum of N R_l, O), contiguous."""
    for level, grads in zip(levels, _split(grad_rows, levels)):
        taps = grad_weight.permute(0, 2, 3, 1)
        torch.ops.aligncli_ext.collect.default(level.map, level.boxes, grads, level.stride, panel_width(), taps)


def _split(rows: Tensor, levels: Sequence[Level]) -> Sequence[Tensor]:
    return rows.split([level.num_locations() for level in levels])


def _panels(taps: Tensor) -> Tensor:
    """(kh, kw, K, N) to (kh kw, N / panel, K, panel), with zeros where N does not fill the last."""
    taps, width = taps.detach(), panel_width()
    whole = taps if taps.shape[3] % width == 0 else F.pad(taps, (0, -taps.shape[3] % width))
    return whole.unflatten(3, (-1, width)).transpose(2, 3).contiguous().flatten(0, 1)
