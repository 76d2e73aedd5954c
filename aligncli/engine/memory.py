"""How much memory a process has used at most."""

from __future__ import annotations

import math
import sys

import torch


def peak_memory(device: str) -> float:
    """Bytes: on CUDA what torch held of the device, elsewhere what was resident; NaN on Windows."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
