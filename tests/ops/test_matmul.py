"""A prepared product is the plain one, whoever computes it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aligncli.ops import matmul
from aligncli.ops.matmul import Product, add_product_of_transposes


@pytest.fixture(params=["onednn", "addmm"])
def library(request, monkeypatch):
    """Which of the two this machine takes in float32."""
    monkeypatch.setattr(matmul, "_mkl_is_as_fast", lambda: request.param == "addmm")
    if (request.param == "onednn") != matmul.onednn_serves(torch.empty(1, 1)):
        pytest.skip(f"this PyTorch has no choice: {request.param} does not serve")
    return request.param


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("num_rows", [9, 128, 137])
def test_a_product_is_the_plain_one_and_goes_where_it_is_told(dtype, has_bias, num_rows):
    x, matrix, bias = torch.randn(num_rows, 20).to(dtype), torch.randn(13, 20).to(dtype), torch.randn(13).to(dtype)
    expected = (x.double() @ matrix.double().T + (bias.double() if has_bias else 0)).to(dtype)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    product = Product(matrix, bias if has_bias else None)
    torch.testing.assert_close(product(x), expected, rtol=0, atol=tolerance)
    rows = torch.full((num_rows, 17), 3.0, dtype=dtype)
    product.write(x, rows[:, 2:15])  # a slice of the outputs
    torch.testing.assert_close(rows[:, 2:15], expected, rtol=0, atol=tolerance)
    product.add(x, rows[:, 2:15])
    torch.testing.assert_close(rows[:, 2:15], 2 * expected, rtol=0, atol=2 * tolerance)
    assert (rows[:, :2] == 3).all()
    assert (rows[:, 15:] == 3).all()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("dtype", "sum_dtype", "tolerance"),
    [
        (torch.float32, torch.float32, 5e-5),
        (torch.float64, torch.float64, 1e-12),
        (torch.bfloat16, torch.float32, 0.2),
    ],
)
@pytest.mark.parametrize("num_rows", [9, 128, 137])
def test_a_product_of_transposes_is_added_to_its_total(dtype, sum_dtype, tolerance, num_rows):
    grad, columns = torch.randn(num_rows, 13).to(dtype), torch.randn(num_rows, 20).to(dtype)
    total = torch.randn(13, 40, dtype=sum_dtype)
    expected = total.double()
    expected[:, :20] += grad.double().T @ columns.double()
    add_product_of_transposes(total[:, :20], grad, columns)  # some of the taps
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=tolerance)


class RowsGiven(TorchDispatchMode):
    """How many rows oneDNN was given, at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.mkldnn._linear_pointwise.default:
            self.counts.append(args[0].shape)
        return func(*args, **(kwargs or {}))


def test_onednn_prepares_for_few_sizes_however_many_rows_there_are(library):
    """It keeps what it has prepared: boxes that vary in number would cost memory without end."""
    matrix = torch.randn(13, 20)
    product, total = Product(matrix), torch.zeros(13, 20)
    with RowsGiven() as given:
        for num_rows in range(1, 400, 7):
            product(torch.randn(num_rows, 20))
            add_product_of_transposes(total, torch.randn(num_rows, 13), torch.randn(num_rows, 20))
    assert len(set(given.counts)) == (12 if library == "onednn" else 0)
