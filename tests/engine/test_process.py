"""What commands set for their whole process; which of them do stands in tests/cli/test_process_settings.py."""

from collections.abc import Iterator

import pytest
import torch

from aligncli.engine.process import multiply_as_convolutions_do


@pytest.fixture
def flags() -> Iterator[None]:
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("allowed", [True, False])
def test_products_have_the_precision_of_convolutions(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed, not allowed
    multiply_as_convolutions_do()
    assert torch.backends.cuda.matmul.allow_tf32 == allowed
    assert torch.backends.cudnn.allow_tf32 == allowed
