"""Shared by the operator's tests: boxes like a detector's, and ones that no detector should make."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from aligncli.ops.backend import missing_native


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def skip_without_native_kernels(request: pytest.FixtureRequest) -> None:
    """Tests with `backend="native"` among their parameters need a compiler, at least once."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("backend") == "native":
        missing = missing_native(device="cpu", dtype=torch.float64)
        if missing is not None:
            pytest.skip(f"no native kernels: {missing}")


@pytest.fixture
def num_threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def random_boxes() -> Callable[..., Tensor]:
    """(N, H, W, 4) float64 boxes of a map, one around each cell, some partly outside."""

    def make(num_images: int, height: int, width: int, stride: float, *, spread: float = 3.0) -> Tensor:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        center = torch.stack([x, y], dim=-1) + 0.5 + torch.randn(num_images, height, width, 2, dtype=torch.float64)
        half = spread * torch.rand(num_images, height, width, 2, dtype=torch.float64)
        return torch.cat([center - half, center + half], dim=-1) * stride

    return make
