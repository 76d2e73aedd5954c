"""The matrix products of RoIConv on any device: one matrix with many chunks of rows, prepared once."""

import torch
from torch import Tensor

# oneDNN keeps what it prepares for each number of rows, for good: hundreds of megabytes where boxes vary in number. It
# is given whole blocks of rows, and the rest goes through `addmm`.
BLOCK = 64


class Product:
    """x -> x @ matrix.T + bias, for many x of a chunk's size; matrix (O, K), bias (O,) or None."""

    def __init__(self, matrix: Tensor, bias: Tensor | None = None) -> None:
        self._transpose = matrix.T
        self._bias = None if bias is None else bias.contiguous()
        self._packed = None
        if onednn_serves(matrix):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """(r, K) -> (r, O)."""
        whole = len(x) - len(x) % BLOCK if self._packed is not None else 0
        if whole == 0:
            return x @ self._transpose if self._bias is None else torch.addmm(self._bias, x, self._transpose)
        packed = torch.ops.mkldnn._linear_pointwise(x[:whole], self._packed, self._bias, "none", [], "")
        return packed if whole == len(x) else torch.cat((packed, self(x[whole:])))

    def write(self, x: Tensor, rows: Tensor) -> None:
        """Into rows (r, O)."""
        if self._packed is not None:
            rows.copy_(self(x))
        elif self._bias is None:
            torch.mm(x, self._transpose, out=rows)
        else:
            torch.addmm(self._bias, x, self._transpose, out=rows)

    def add(self, x: Tensor, rows: Tensor) -> None:
        """To rows (r, O)."""
        if self._packed is not None or self._bias is not None:
            rows.add_(self(x))
        else:
            rows.addmm_(x, self._transpose)


def add_product_of_transposes(total: Tensor, grad: Tensor, columns: Tensor) -> None:
    """total += grad.T @ columns: (r, O) and (r, K C) to (O, K C), whose sums may be of a wider type."""
    whole = len(grad) - len(grad) % BLOCK if onednn_serves(grad) and grad.dtype == torch.float32 else 0
    if whole:
        transpose = grad[:whole].T.contiguous()
        total += torch.ops.mkldnn._linear_pointwise(transpose, columns[:whole].T, None, "none", [], "")
        grad, columns = grad[whole:], columns[whole:]
    if total.dtype == grad.dtype:
        total.addmm_(grad.T, columns)
    else:
        total += grad.T @ columns


def onednn_serves(matrix: Tensor) -> bool:
    """Whether to go round `addmm`: oneDNN with a matrix packed once computes as fast as `conv2d`.

    In float32 with AVX512 it is over twice as fast on AMD as the MKL in PyTorch's wheels, which `addmm` takes and
    which uses AVX2 there. On a machine that has AVX2 only, MKL is the faster one, by a tenth and, in the weight's
    gradient, more. `addmm` in bfloat16 is oneDNN, but packs the matrix again for each chunk. The operators are
    private, inductor's own: where they are not there, `addmm` computes the same.
    """
    return (
        matrix.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and (
            (matrix.dtype == torch.float32 and not _mkl_is_as_fast())
            or (matrix.dtype == torch.bfloat16 and _has_bfloat16())
        )
    )


def _mkl_is_as_fast() -> bool:
    return torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX2"


def _has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
