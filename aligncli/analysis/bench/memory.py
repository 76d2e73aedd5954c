"""Peak memory of a call, beyond what was there before it and what it returns; and what the first call keeps.

CUDA: the allocator's own count. CPU: the high-water mark of resident memory in a process of its own, because
libraries allocate behind torch's back (oneDNN's scratch, std::vector) and only the system sees that. There the
C allocator is told to give memory back at once, which costs time: never time in that process. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

Call = Callable[[], Sequence[Tensor]]
Build = Callable[[], Call]  # makes the inputs; has to be picklable for the CPU

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets VmHWM to VmRSS
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # mallopt(3)
EXACT = 512 << 10  # bytes, to which the system's count is exact
LARGE = 64 << 10  # bytes; from here on an allocation is a mapping of its own, unmapped when freed


@dataclass(frozen=True)
class MemoryUse:
    """Bytes. peak: extra, of any call but the first. kept: after the first one, for those that follow: compiled
    code, packed weights, buffers.
    """

    peak: int
    kept: int


class MemoryMeter:
    """Measures on one device; the process that the CPU needs lives as long as the context."""

    def __init__(self, *, device: str, num_threads: int) -> None:
        self._device = device
        self._num_threads = num_threads
        self._stack = ExitStack()
        self._process: ProcessPoolExecutor | None = None

    def __enter__(self) -> MemoryMeter:
        if torch.device(self._device).type == "cpu" and CLEAR_REFS.exists():
            pool = ProcessPoolExecutor(1, get_context("spawn"), _set_up_process, (self._num_threads,))
            self._process = self._stack.enter_context(pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, build: Build, warm_up: Build) -> MemoryUse | None:
        """Of the call that `build` makes; `warm_up` makes a small one that loads the same code before.

        None where it cannot be known.
        """
        if torch.device(self._device).type == "cuda":
            return _measure(build, warm_up, CudaMemory(self._device))
        if self._process is None:
            return None
        return self._process.submit(_measure, build, warm_up, ResidentMemory()).result()


class Memory(Protocol):
    """A count of bytes in use, and its high-water mark."""

    def restart_peak(self) -> None: ...

    def used(self) -> int: ...

    def peak(self) -> int: ...


@dataclass(frozen=True)
class CudaMemory:
    """By the caching allocator's own counters."""

    device: str

    def restart_peak(self) -> None:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)

    def used(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)


class ResidentMemory:
    """By the system's count for this process; see EXACT."""

    def restart_peak(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK, encoding="utf-8")

    def used(self) -> int:
        return _status_bytes("VmRSS")

    def peak(self) -> int:
        return _status_bytes("VmHWM")


def _measure(build: Build, warm_up: Build, memory: Memory) -> MemoryUse:
    """A first call, and another one only if the first kept something: slow contenders are called once."""
    warm_up()()
    call = build()
    memory.restart_peak()
    at_first = memory.used()
    peak = _peak(call, memory)
    memory.restart_peak()
    kept = memory.used() - at_first
    if kept > EXACT:
        peak = _peak(call, memory)
    return MemoryUse(peak=max(0, peak), kept=max(0, kept))


def _peak(call: Call, memory: Memory) -> int:
    before = memory.used()
    returned = call()
    return memory.peak() - before - num_bytes(returned)


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Of their elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{STATUS} has no {name}"
    return int(found[1]) * 1024


def _set_up_process(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, LARGE)
    library.mallopt(M_TRIM_THRESHOLD, 0)
