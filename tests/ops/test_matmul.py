"""A prepared product is the plain one, whoever computes it."""

import pytest
import torch

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
def test_a_product_is_the_plain_one_and_goes_where_it_is_told(dtype, has_bias):
    x, matrix, bias = torch.randn(9, 20).to(dtype), torch.randn(13, 20).to(dtype), torch.randn(13).to(dtype)
    expected = (x.double() @ matrix.double().T + (bias.double() if has_bias else 0)).to(dtype)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    product = Product(matrix, bias if has_bias else None)
    torch.testing.assert_close(product(x), expected, rtol=0, atol=tolerance)
    rows = torch.full((9, 17), 3.0, dtype=dtype)
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
        (torch.float32, torch.float32, 1e-5),
        (torch.float64, torch.float64, 1e-12),
        (torch.bfloat16, torch.float32, 0.1),
    ],
)
def test_a_product_of_transposes_is_added_to_its_total(dtype, sum_dtype, tolerance):
    grad, columns = torch.randn(9, 13).to(dtype), torch.randn(9, 20).to(dtype)
    total = torch.randn(13, 40, dtype=sum_dtype)
    expected = total.double()
    expected[:, :20] += grad.double().T @ columns.double()
    add_product_of_transposes(total[:, :20], grad, columns)  # some of the taps
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=tolerance)
