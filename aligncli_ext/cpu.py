"""The CPU kernels, loaded: from the wheel, from the cache, or built at first use and kept there.

Loading registers the operators `torch.ops.aligncli_ext.{gather, scatter, grad_boxes}`. A library is cached under the
hash of its sources and of its compiler, with a record of how the build ended beside it; a failed build is not tried
again before one of them, or PyTorch, changes, unless room, memory or time were lacking. Processes that come at the same
time build once.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from aligncli_ext.build import LIBRARY_STEM, BuildError, PassingBuildError, compile_library, find_compiler
from aligncli_ext.places import Entry, bundled_library, cache_entry

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CpuKernels:
    """Where the loaded library lies, or why there is none; one of the two is None."""

    library: Path | None
    reason: str | None


@functools.cache
def load_cpu_kernels() -> CpuKernels:
    """The kernels, registered with PyTorch; built at first where they have to be. Never raises: see the reason."""
    try:
        return CpuKernels(_find_or_build(), None)
    except BuildError as error:
        return CpuKernels(None, str(error))


def find_cpu_kernels() -> CpuKernels:
    """The kernels if they are built already, registered with PyTorch. Builds nothing."""
    try:
        bundled = _loaded() or _load_bundled()
        if bundled is not None:
            return CpuKernels(bundled, None)
        entry = cache_entry(find_compiler())
    except (BuildError, OSError) as error:
        return CpuKernels(None, str(error))
    cached = _load_cached(entry)
    if cached is not None:
        return CpuKernels(cached, None)
    return CpuKernels(None, _recorded_failure(entry) or "not built yet: the first use builds it")


def build_cpu_kernels() -> CpuKernels:
    """`load_cpu_kernels`, with another try where building has failed before."""
    with contextlib.suppress(BuildError, OSError):
        entry = cache_entry(find_compiler())
        if _recorded_failure(entry) is not None:
            entry.record.unlink()
            load_cpu_kernels.cache_clear()
    return load_cpu_kernels()


def _find_or_build() -> Path:
    bundled = _loaded() or _load_bundled()
    if bundled is not None:
        return bundled
    compiler = find_compiler()
    try:
        entry = cache_entry(compiler)
        cached = _load_cached(entry)
        if cached is not None:
            return cached
        entry.lock.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry.lock):
            return _build(compiler, entry)
    except OSError as error:
        raise BuildError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error


def _build(compiler: list[str], entry: Entry) -> Path:
    """With the lock held: another process may have built by now, and what is there may not load."""
    cached = _load_cached(entry)
    if cached is not None:
        return cached
    failure = _recorded_failure(entry)
    if failure is not None:
        raise BuildError(failure)
    _logger.warning("building the CPU kernel of RoIConv, once (about 10 seconds)")
    unfinished = entry.library.with_name(f"{entry.library.name}.{os.getpid()}")
    try:
        compile_library(compiler, unfinished)
        digest = _digest(unfinished)
        unfinished.replace(entry.library)
        _write_record(entry, {"sha256": digest})
        try:
            return _load(entry.library)
        except OSError as error:
            raise BuildError(f"the library that was built does not load: {error.__cause__ or error}") from error
    except PassingBuildError:
        raise
    except BuildError as error:
        _write_record(entry, {"failure": str(error), "torch": torch.__version__})
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _loaded() -> Path | None:
    """What this process has loaded. Another one, as of a compiler chosen since, would define its operators twice."""
    own = (path for path in map(Path, torch.ops.loaded_libraries) if path.name.startswith(LIBRARY_STEM))
    return next(own, None)


def _load(library: Path) -> Path:
    torch.ops.load_library(str(library))
    return library


def _load_bundled() -> Path | None:
    library = bundled_library()
    try:
        return _load(library) if library.is_file() else None
    except OSError:  # built for another system: build our own
        return None


def _load_cached(entry: Entry) -> Path | None:
    """None where there is no library, or one that is not what was built: loading half a file can end the process."""
    expected = _read_record(entry).get("sha256")
    try:
        return _load(entry.library) if expected is not None and _digest(entry.library) == expected else None
    except OSError:  # missing, or it does not load
        return None


def _recorded_failure(entry: Entry) -> str | None:
    record = _read_record(entry)
    return record.get("failure") if record.get("torch") == torch.__version__ else None


def _read_record(entry: Entry) -> dict[str, str]:
    try:
        record = json.loads(entry.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or a damaged one
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(entry: Entry, record: dict[str, str]) -> None:
    unfinished = entry.record.with_name(f"{entry.record.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(record), encoding="utf-8")
    unfinished.replace(entry.record)


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # not on Windows, where nothing is built

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
