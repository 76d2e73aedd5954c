"""The memory of a process: how much it has used at most, and what becomes of what its tensors free."""

from __future__ import annotations

import ctypes
import math
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_MOST_KEPT = 256 << 20  # more made no training or detection faster that was tried


def keep_freed_memory() -> bool:
    """Let the C library keep up to 256 MiB of freed memory for the next tensors; returns whether it can: glibc.

    By itself it gives large blocks back to the system, and when they are taken again their pages are filled with
    zeros first, one fault a page: up to a seventh of the time of a step or a detection (docs/results/pipeline.md).
    It holds for the whole process, so commands call this and the library does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT) and mallopt(_MMAP_THRESHOLD, _MOST_KEPT))


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
