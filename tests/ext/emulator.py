"""The CUDA kernels on the CPU: the very source, compiled as C++ with a thread loop around it."""

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from aligncli_ext import nvrtc
from aligncli_ext.cuda import Kernels

SOURCE = Path(__file__).parent / "emulator.cpp"
CSRC = Path(nvrtc.__file__).parent / "csrc"


class EmulatedKernels(Kernels):
    """The kernels of one element type, on CPU tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(self._launch_in_library, contextlib.nullcontext, warp_size=1)
        library.launch.restype = ctypes.c_bool
        library.count_additions.restype = ctypes.c_longlong
        self._library = library
        self.launched: list[str] = []

    def count_additions(self) -> int:
        """How many numbers were added to memory until now, as atomics on a GPU."""
        return self._library.count_additions()

    def _launch_in_library(
        self, name: str, grid: tuple[int, int], threads: tuple[int, int], shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        self.launched.append(name)
        assert shared_bytes <= 64 << 10
        levels, chunk, columns, *num_locations = arguments
        assert self._library.launch(
            name.encode(), grid[0], *threads, ctypes.byref(levels), ctypes.byref(chunk), columns, *num_locations or [0]
        )


def build_emulated_kernels(dtype: torch.dtype, directory: Path) -> EmulatedKernels:
    """Compiles them into `directory`. Skips the test where there is no C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to run the CUDA kernels on the CPU with")
    element_type = str(dtype).removeprefix("torch.")
    library_path = directory / f"emulated_{element_type}.so"
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wno-unknown-pragmas"]
    number = f"-DALIGNCLI_NUMBER={nvrtc.ELEMENT_TYPES[element_type]}"
    command = [compiler, *options, number, f"-I{CSRC}", str(SOURCE), "-o", str(library_path)]
    subprocess.run(command, check=True)
    return EmulatedKernels(ctypes.CDLL(str(library_path)))
