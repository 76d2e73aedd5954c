"""Compiles the CPU kernels: sources and flags, listed once for the first use and for wheels.

One call of GCC or Clang, no build system. The library is written against PyTorch's stable ABI, so that one file
serves every PyTorch from 2.10 on. Importing this module imports no torch: `setup.py` does it too.
"""

import hashlib
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from aligncli_ext.environment import compiler_command

SOURCE_DIRECTORY = Path(__file__).parent / "csrc"
SOURCES = ("roi_conv_cpu.cpp", "roi_conv_tiles.cpp")
HEADERS = (
    "arguments_cpu.h",
    "kernels_cpu.h",
    "levels_cpu.h",
    "machine_cpu.h",
    "sampling.h",
    "tile_loops_cpu.h",
    "tiles_cpu.h",
    "vectors.h",
)
LIBRARY_STEM = "roi_conv_cpu-"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wno-psabi",  # vectors are passed between inlined functions only
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # 2.10: torch::stable::parallel_for
)
TIMEOUT_SECONDS = 300
# In what compilers say: the disk is full, memory is, or a part of the compiler was killed
PASSING_SIGNS = ("No space left", "quota exceeded", "out of memory", "virtual memory exhausted", "Killed", "terminated")


class BuildError(Exception):
    """The library cannot be compiled here; the message is the reason, one line for people."""


class PassingBuildError(BuildError):
    """It could not be compiled this time, for a reason that may be gone the next: no room, no memory, no time."""


def source_key() -> str:
    """Changes with the sources, the flags and the platform: what any library made from them is named after."""
    digest = hashlib.sha256()
    for name in (*SOURCES, *HEADERS):
        digest.update((SOURCE_DIRECTORY / name).read_bytes())
    digest.update(repr((FLAGS, sys.platform, platform.machine())).encode())
    return digest.hexdigest()[:16]


def library_name() -> str:
    """Of the library in a wheel: one of other sources is never taken for it."""
    return f"{LIBRARY_STEM}{source_key()}.so"


def find_compiler() -> list[str]:
    """The compiler's command line so far. Raises BuildError where there is none that can build for PyTorch."""
    if sys.platform == "win32":
        raise BuildError("the CPU kernels are written for GCC and Clang, and PyTorch for Windows takes neither")
    try:
        command = compiler_command()
    except ValueError as error:
        raise BuildError(f"the variable CXX is no command line: {error}") from error
    if not command:
        raise BuildError("there is no C++ compiler: install g++ or clang++, or set CXX to one")
    return command


def compiler_key(command: Sequence[str]) -> str:
    """Changes with the compiler: its command line, and the file behind it."""
    program = Path(command[0]).resolve()
    status = program.stat()
    identity = (str(program), status.st_size, status.st_mtime_ns, *command[1:])
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def compile_library(command: Sequence[str], library: Path) -> None:
    """Compile all sources into the shared library `library`. Raises BuildError with the compiler's first error."""
    torch = _torch_directory()
    arguments = [
        *command,
        *FLAGS,
        "-isystem",
        str(torch / "include"),
        *(str(SOURCE_DIRECTORY / name) for name in SOURCES),
        "-o",
        str(library),
        f"-L{torch / 'lib'}",
        "-ltorch_cpu",
    ]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise PassingBuildError(f"{command[0]} took more than {TIMEOUT_SECONDS} seconds") from error
    if done.returncode != 0:
        passing = done.returncode < 0 or any(sign in done.stderr for sign in PASSING_SIGNS)
        kind = PassingBuildError if passing else BuildError
        raise kind(f"{command[0]} failed: {_first_error(done.stderr, done.returncode)}")
    if not library.is_file():
        raise BuildError(f"{command[0]} ended well and wrote nothing")


def _torch_directory() -> Path:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise BuildError("PyTorch is not installed")
    directory = Path(found.origin).parent
    if not (directory / "include" / "torch" / "csrc" / "stable" / "library.h").is_file():
        raise BuildError(f"this PyTorch comes without its C++ headers ({directory / 'include'})")
    return directory


def _first_error(output: str, code: int) -> str:
    """The line of a compiler's output that people need."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # GCC and Clang each end with a line about the linker's failure, which says nothing; the linker's own come before.
    own = [line for line in lines if "ld returned" not in line and "linker command failed" not in line]
    errors = [line for line in own if "error: " in line]
    return (errors or own or lines or [f"exit code {code}, and it said nothing"])[0]
