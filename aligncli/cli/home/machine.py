"""What this machine can do, told at once: asks the driver and the file system, imports no torch.

`aligncli doctor` asks torch itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from importlib.metadata import version

from aligncli_ext.build import BuildError
from aligncli_ext.places import find_library

CUDA_DRIVERS = {"win32": "nvcuda.dll", "linux": "libcuda.so.1"}
MAX_NAME = 100  # bytes of a device's name


def describe_device() -> str:
    """The CUDA devices, or why there are none, and the processor's cores."""
    cores = f"CPU, {os.cpu_count()} cores"
    gpus = cuda_devices()
    if gpus and "+cpu" in version("torch"):
        return f"{cores}; {', '.join(gpus)}, which this PyTorch cannot use: it is built for CPUs"
    if gpus:
        return f"{', '.join(gpus)}; {cores}"
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return f"{cores}; Apple GPU with --device mps"
    return f"{cores}; no CUDA device"


def cuda_devices() -> list[str]:
    """Names of the GPUs that the NVIDIA driver lets this process use; empty without a driver."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVERS[sys.platform])
    except (KeyError, OSError):  # of no such platform; not installed
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(MAX_NAME)
        if not driver.cuDeviceGetName(name, MAX_NAME, index):  # a device's handle is its number
            names.append(name.value.decode(errors="replace"))
    return names


def describe_kernels() -> str:
    """Whether the CPU kernels of RoIConv are there."""
    try:
        built = find_library() is not None
    except BuildError as error:
        return f"plain PyTorch computes RoIConv: {error}"
    return "CPU kernels are built" if built else "CPU kernels are built at first use, in about ten seconds"
