"""RoIConv on the CPU with our own matrix products too, in float32 and bfloat16: threads that never wait for each other.

A thread samples one tap of some locations, multiplies, and goes on (aligncli_ext/csrc/tile_loops_cpu.h). A library's
product of a chunk of columns (native_columns.py) is shared out among the threads, which wait for each other each time.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aligncli.ops.native_parts import KernelRows, Level, groups_of_kernel_rows, whole_kernel

MATRIX_BYTES = 4 << 20  # of the weight at a time, in panels: a copy


def panel_width(like: Tensor) -> int:
    """Values of this type that lie together in a panel, as tiles_cpu.h wants them here; 0: columns are faster.

    16 floats with AVX2, 32 with AVX-512, and pairs of bfloat16 with AVX512-BF16, except where there is AMX, whose
    products are oneDNN's.
    """
    return torch.ops.aligncli_ext.panel_width.default(like)


def tiles_serve(weight: Tensor) -> bool:
    """Whether they are the fastest for this type on this machine."""
    return panel_width(weight) > 0


def forward(levels: Sequence[Level], weight: Tensor, bias: Tensor | None) -> Tensor:
    """As native.forward."""
    rows = weight.new_empty(sum(level.num_locations() for level in levels), weight.shape[0])
    bias = None if bias is None else bias.detach().float().contiguous()
    # In bfloat16 a sum over groups would be rounded after each.
    is_rounded = weight.dtype == torch.bfloat16
    for kernel in [whole_kernel(weight)] if is_rounded else groups_of_kernel_rows(weight, MATRIX_BYTES):
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
        torch.ops.aligncli_ext.collect.default(level.map, level.boxes, grads, level.stride, panel_width(grads), taps)


def _split(rows: Tensor, levels: Sequence[Level]) -> Sequence[Tensor]:
    return rows.split([level.num_locations() for level in levels])


def _panels(taps: Tensor) -> Tensor:
    """(kh, kw, K, N) to (kh kw, N / panel, units of K, width): of a panel's N, and of pairs both K beside each other.

    Zeros lie where K or N fill no unit or panel.
    """
    width, unit = panel_width(taps), torch.float32.itemsize // taps.itemsize
    panel = width // unit
    rest = (0, -taps.shape[3] % panel, 0, -taps.shape[2] % unit)
    whole = F.pad(taps.detach(), rest) if any(rest) else taps.detach()
    units = whole.unflatten(3, (-1, panel)).unflatten(2, (-1, unit))  # (kh, kw, K / unit, unit, N / panel, panel)
    return units.permute(0, 1, 4, 2, 5, 3).contiguous().flatten(4).flatten(0, 1)
