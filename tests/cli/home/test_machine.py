"""What the home screen says of the machine without asking torch."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from aligncli.cli.home import machine
from aligncli_ext.build import BuildError


class Driver:
    """An NVIDIA driver with two GPUs."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def cuInit(self, flags: int) -> int:
        return 100 if self.broken else 0

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGetName(self, name, length: int, device: int) -> int:
        name.value = f"GPU {device}".encode()
        return 0


@pytest.mark.parametrize(
    ("driver", "build", "text"),
    [
        (Driver(), "2.11.0+cu128", "GPU 0, GPU 1; CPU"),
        (Driver(), "2.11.0+cpu", "GPU 0, GPU 1, which this PyTorch cannot use"),
        (Driver(broken=True), "2.11.0+cu128", "no CUDA device"),
        (None, "2.11.0+cu128", "no CUDA device"),
    ],
)
def test_gpus_are_named_by_their_driver(monkeypatch, driver, build: str, text: str) -> None:
    def load(name: str):
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return driver

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(machine, "version", lambda name: build)
    assert text in machine.describe_device()


def test_an_apple_gpu_is_offered(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    assert machine.describe_device().endswith("Apple GPU with --device mps")


@pytest.mark.gpu
def test_the_driver_and_torch_name_the_same_gpus() -> None:
    assert machine.cuda_devices() == [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def test_the_kernels_are_built_or_will_be_or_cannot(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(machine, "find_library", lambda: tmp_path)
    assert machine.describe_kernels() == "CPU kernels are built"
    monkeypatch.setattr(machine, "find_library", lambda: None)
    assert "built at first use" in machine.describe_kernels()

    def refuse():
        raise BuildError("there is no C++ compiler")

    monkeypatch.setattr(machine, "find_library", refuse)
    assert machine.describe_kernels() == "plain PyTorch computes RoIConv: there is no C++ compiler"
