"""What the numbers were measured on, and the matrix product that this machine can do: the limit of them all."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor

from aligncli.environment import processor_name

PACKAGES = ("aligncli", "torch", "torchvision")
Product = Callable[[], Tensor]


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Torch's number of threads inside; None leaves it alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Machine:
    """Hardware, versions, and how busy the machine was; `load` is the one-minute average, None if unknown."""

    device: str
    processor: str
    num_cores: int
    num_threads: int
    instructions: str
    platform: str
    versions: dict[str, str]
    load: float | None


def describe_machine(device: str, *, packages: Sequence[str] = PACKAGES) -> Machine:
    """This machine, as torch is set up at the moment, and the versions of `packages`."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        versions |= {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}
    return Machine(
        device=torch.cuda.get_device_name(device) if is_cuda else "cpu",
        processor=processor_name(),
        num_cores=os.cpu_count() or 1,
        num_threads=torch.get_num_threads(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        platform=platform.platform(),
        versions=versions,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def product_flops(side: int) -> int:
    """Of one square product; a multiply-add is 2."""
    return 2 * side**3


def square_products(side: int, dtype: torch.dtype, device: str) -> dict[str, Product]:
    """Ways to the same square product a @ b.T + bias, (side, side); side is a multiple of 32.

    All that torch offers, because the fastest one is the limit: on the CPU `addmm` goes to MKL and the other
    two to oneDNN, which differ by more than 2 on some processors.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).div(side**0.5).to(device, dtype) for _ in range(2))
    bias = torch.zeros(side, dtype=dtype, device=device)
    pixels = a.view(1, 32, side // 32, side).permute(0, 3, 1, 2)  # channels_last
    products: dict[str, Product] = {
        "addmm": lambda: torch.addmm(bias, a, b.T),
        "conv2d 1x1": lambda: F.conv2d(pixels, b[:, :, None, None], bias)[0].flatten(1).T,
    }
    if pixels.device.type == "cpu" and _onednn_packs(dtype):
        mkldnn = torch.ops.mkldnn
        packed = mkldnn._reorder_linear_weight(b, None)
        products["oneDNN linear"] = lambda: mkldnn._linear_pointwise(a, packed, bias, "none", [], "")
    return products


def _onednn_packs(dtype: torch.dtype) -> bool:
    """Whether the private operators for packed weights are there, and serve this type on this processor."""
    mkldnn = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(mkldnn, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and mkldnn._is_mkldnn_bf16_supported())
