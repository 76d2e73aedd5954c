"""Which implementation computes RoIConv, and why.

`native` are the kernels of aligncli_ext; `fused` replaces native's forward pass on CUDA; `portable` is plain PyTorch
and runs wherever PyTorch does; `reference` is the specification. `native` and `fused` are built at first use, so asking
for them here may take seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from aligncli.environment import ROI_CONV_BACKEND, forced_backend
from aligncli.errors import DeviceError, RecipeError
from aligncli_ext import cuda, fused
from aligncli_ext.cache import cache_directory
from aligncli_ext.cpu import build_cpu_kernels, find_cpu_kernels, load_cpu_kernels

BACKENDS = ("native", "fused", "portable", "reference")
ENVIRONMENT_VARIABLE = ROI_CONV_BACKEND
CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@dataclass(frozen=True)
class Backend:
    """A member of BACKENDS and one line, for people, on why it was chosen."""

    name: str
    reason: str


def requested_backend(requested: str = "auto") -> str:
    """What is asked for, auto or a member of BACKENDS: ALIGNCLI_ROI_CONV takes precedence over `requested`.

    So one run can be compared with another without a change to its recipe. Raises RecipeError for an unknown name.
    """
    forced = forced_backend()
    _check_known(forced, ENVIRONMENT_VARIABLE)
    _check_known(requested, "RoIConv backend")
    return requested if forced == "auto" else forced


def choose_backend(
    requested: str = "auto",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    out_channels: int | None = None,
) -> Backend:
    """The backend that computes RoIConv of features on `device` in `dtype`, when `requested` is asked for.

    auto is fused where there is one, else native, else portable. A layer that fused does not serve is native's, by its
    type and outputs (None: few enough) here, and by its channels when it is computed. Raises RecipeError for an unknown
    name, and DeviceError where native or fused was asked for and this machine does not have it.
    """
    name = requested_backend(requested)
    asked = f"{ENVIRONMENT_VARIABLE} is set" if name != requested else "it was asked for"
    if name in ("portable", "reference"):
        return Backend(name, asked)
    missing = missing_native(device=device, dtype=dtype)
    unserved = _not_served_by_fused(dtype, out_channels)
    if name == "auto":
        if missing is not None:
            return Backend("portable", f"the native one is not to be had: {missing}")
        has_fused = unserved is None and missing_fused(device=device) is None
        return Backend("fused" if has_fused else "native", "it is the fastest one")
    if name == "fused":
        missing = missing_fused(device=device) or missing
    if missing is not None:
        raise DeviceError(f"RoIConv backend {name} ({asked}) is not to be had: {missing}; use auto or portable")
    if name == "fused" and unserved is not None:
        return Backend("native", f"fused ({asked}) does not serve {unserved}")
    return Backend(name, asked)


def missing_native(*, device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Why there are no native kernels for features on `device` in `dtype`, None where there are. At first builds."""
    device = torch.device(device)
    match device.type:
        case "cpu":
            if dtype not in CPU_DTYPES:
                return f"the CPU kernels compute float32, float64 and bfloat16, not {str(dtype).removeprefix('torch.')}"
            return load_cpu_kernels().reason
        case "cuda":
            if not torch.cuda.is_available():
                return "there is no CUDA device"
            index = torch.cuda.current_device() if device.index is None else device.index
            return cuda.unavailable_reason(dtype, index)
        case other:
            return f"there are no kernels for {other} devices"


def missing_fused(*, device: torch.device | str) -> str | None:
    """Why `device` has no fused kernel, None where it has. At first compiles it."""
    device = torch.device(device)
    if device.type != "cuda":
        return f"it runs on CUDA devices, not on {device.type}"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return fused.unavailable_reason(torch.cuda.current_device() if device.index is None else device.index)


def _not_served_by_fused(dtype: torch.dtype, out_channels: int | None) -> str | None:
    """What of a layer is not for the fused kernel; None where everything is, as far as it is known."""
    if dtype not in fused.DTYPES:
        return f"{str(dtype).removeprefix('torch.')}, only float16 and bfloat16"
    if out_channels is not None and out_channels > fused.MOST_OUTPUTS:
        return f"{out_channels} outputs, only up to {fused.MOST_OUTPUTS}"
    return None


@dataclass(frozen=True)
class NativeStatus:
    """Whether a device has native kernels, and one line: where they lie, or why there are none."""

    device: str
    available: bool
    detail: str


def fused_status() -> list[NativeStatus]:
    """Of every CUDA device."""
    found = []
    for index in range(torch.cuda.device_count()):
        missing = missing_fused(device=f"cuda:{index}")
        detail = missing or "compiled by NVRTC; float16 and bfloat16"
        found.append(NativeStatus(f"cuda:{index}", missing is None, detail))
    return found or [NativeStatus("cuda", False, "there is no CUDA device")]


def native_status(*, build: bool) -> list[NativeStatus]:
    """Of the CPU and every CUDA device. With `build` the CPU's library is built, even where that failed before."""
    kernels = build_cpu_kernels() if build else find_cpu_kernels()
    found = [NativeStatus("cpu", kernels.library is not None, str(kernels.library or kernels.reason))]
    for index in range(torch.cuda.device_count()):
        device = f"cuda:{index}"
        missing = missing_native(device=device, dtype=torch.float32)
        found.append(NativeStatus(device, missing is None, missing or "compiled by NVRTC"))
    if len(found) == 1:
        found.append(NativeStatus("cuda", False, "there is no CUDA device"))
    return found


def kernel_cache() -> Path | None:
    """The folder where compiled kernels are kept, which need not exist yet; None for a user without a home."""
    try:
        return cache_directory()
    except OSError:
        return None


def _check_known(name: str, what: str) -> None:
    if name not in ("auto", *BACKENDS):
        raise RecipeError(f"{what} {name!r} is unknown: choose one of auto, {', '.join(BACKENDS)}")
