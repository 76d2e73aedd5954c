"""Where the CPU kernels' library lies: in the wheel, or in the cache. Imports no torch, loads and builds nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligncli_ext.build import LIBRARY_STEM, compiler_key, find_compiler, library_name, source_key
from aligncli_ext.cache import cache_directory

# Filled when a wheel is built where there are a compiler and PyTorch (see setup.py).
BUNDLED_DIRECTORY = Path(__file__).parent / "lib"


@dataclass(frozen=True)
class Entry:
    """Where the cache keeps a library, how its build ended, and who is building."""

    library: Path
    record: Path
    lock: Path


def bundled_library() -> Path:
    """Where a wheel has its library; the file may not exist."""
    return BUNDLED_DIRECTORY / library_name()


def cache_entry(compiler: Sequence[str]) -> Entry:
    """Where the library that this compiler makes is kept; the files may not exist. Raises OSError without a home."""
    stem = cache_directory() / "cpu" / f"{LIBRARY_STEM}{source_key()}-{compiler_key(compiler)}"
    return Entry(*(stem.with_name(stem.name + suffix) for suffix in (".so", ".json", ".lock")))


def find_library() -> Path | None:
    """The library's file, None before it is built. Raises BuildError where it cannot be built either."""
    if bundled_library().is_file():
        return bundled_library()
    library = cache_entry(find_compiler()).library
    return library if library.is_file() else None
