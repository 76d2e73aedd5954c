"""The matrix products of RoIConv: one matrix with many chunks of rows, prepared once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def prepare_product(matrix: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x -> x @ matrix.T + bias, for many x of a chunk's size."""
    if onednn_serves(matrix):
        packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), None)
        dense_bias = None if bias is None else bias.contiguous()
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, dense_bias, "none", [], "")
    return lambda x: F.linear(x, matrix, bias)


def product_of_transposes(grad: Tensor, columns: Tensor) -> Tensor:
    """grad.T @ columns: (r, O) and (r, K C) -> (O, K C)."""
    if onednn_serves(grad) and grad.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(grad.T.contiguous(), columns.T, None, "none", [], "")
    return grad.T @ columns


def onednn_serves(matrix: Tensor) -> bool:
    """Whether to go round `addmm`: oneDNN with a matrix packed once computes as fast as `conv2d`.

    In float32 on AMD it is over twice as fast as the MKL in PyTorch's wheels, which `addmm` takes; `addmm` in
    bfloat16 is oneDNN, but packs the matrix again for each chunk. The operators are private, inductor's own: where
    they are not there, `addmm` computes the same.
    """
    return (
        matrix.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and (matrix.dtype == torch.float32 or (matrix.dtype == torch.bfloat16 and _has_bfloat16()))
    )


def _has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
