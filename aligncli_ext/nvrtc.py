"""The CUDA kernels' machine code: CUDA C++ compiled by NVRTC at first use, then read from the cache.

NVRTC comes with CUDA builds of PyTorch, and so do its bindings (`cuda-bindings`): no toolkit, header or GPU is needed.
A kernel takes about half a second to compile for one element type and one architecture.
"""

import contextlib
import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncli_ext.cache import cache_directory, read_entry, write_entry

# The names of torch's dtypes, and the C++ type of each in the kernels.
ELEMENT_TYPES = {"float32": "float", "float16": "Float16", "bfloat16": "BFloat16"}
OLDEST_ARCHITECTURE = 75

_SOURCE_DIRECTORY = Path(__file__).parent / "csrc"
_HEADERS = (
    "fused_consume.cuh",
    "fused_produce.cuh",
    "fused_stages.cuh",
    "gather.cuh",
    "grad_boxes.cuh",
    "grid.cuh",
    "hopper.cuh",
    "levels.cuh",
    "numbers.cuh",
    "sampling.h",
    "scatter.cuh",
)
# Only the fused multiplications that are written as fma, so that the CPU can repeat the arithmetic bit by bit.
_OPTIONS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")


class CudaUnavailable(Exception):
    """The CUDA kernels cannot run here; the message is the reason, for people."""


@dataclass(frozen=True)
class Program:
    """What is compiled: a file of csrc for a member of ELEMENT_TYPES and an architecture, such as sm_75.

    header: another file that the source includes, its name and its text. definitions: such as NAME=1.
    """

    source: str
    element_type: str
    architecture: str
    header: tuple[str, str] | None = None
    definitions: tuple[str, ...] = ()

    def headers(self) -> dict[str, bytes]:
        found = {name: (_SOURCE_DIRECTORY / name).read_bytes() for name in _HEADERS}
        return found if self.header is None else found | {self.header[0]: self.header[1].encode()}

    def options(self) -> list[str]:
        definitions = (f"ALIGNCLI_NUMBER={ELEMENT_TYPES[self.element_type]}", *self.definitions)
        return [*_OPTIONS, f"--gpu-architecture={self.architecture}", *(f"-D{one}" for one in definitions)]

    def text(self) -> bytes:
        return (_SOURCE_DIRECTORY / self.source).read_bytes()

    def key(self) -> str:
        """Of the compiler, the options and every file."""
        digest = hashlib.sha256(repr((_version(), self.options())).encode())
        for text in (self.text(), *self.headers().values()):
            digest.update(text)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class CompiledKernels:
    """Machine code for one architecture, and the assembler's report on its registers and spills."""

    cubin: bytes
    report: str


def compile_kernels(wanted: Program) -> CompiledKernels:
    """Raises CudaUnavailable, with the compiler's first error, where the program does not compile."""
    nvrtc = _load_nvrtc()
    headers = wanted.headers()
    names = [name.encode() for name in headers]
    program = _check(
        nvrtc.nvrtcCreateProgram(wanted.text(), wanted.source.encode(), len(headers), list(headers.values()), names)
    )
    try:
        options = [option.encode() for option in wanted.options()]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        report = bytearray(_check(nvrtc.nvrtcGetProgramLogSize(program)))
        _check(nvrtc.nvrtcGetProgramLog(program, report))
        text = report.rstrip(b"\0").decode(errors="replace")
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            error = next((line.strip() for line in text.splitlines() if "error" in line), result.name)
            raise CudaUnavailable(f"NVRTC does not compile the kernels for {wanted.architecture}: {error}")
        cubin = bytearray(_check(nvrtc.nvrtcGetCUBINSize(program)))
        _check(nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        _check(nvrtc.nvrtcDestroyProgram(program))
    return CompiledKernels(bytes(cubin), text)


def cached_cubin(program: Program) -> bytes:
    """`compile_kernels`' machine code, compiled once for all processes of this user. Raises CudaUnavailable."""
    name = Path(program.source).stem.removesuffix("_cuda")
    try:
        path = cache_directory() / f"{name}-{program.element_type}-{program.architecture}-{program.key()}.cubin"
    except OSError:  # no home: each process compiles
        return compile_kernels(program).cubin
    cubin = read_entry(path)
    if cubin is None:
        cubin = compile_kernels(program).cubin
        with contextlib.suppress(OSError):  # a read-only home costs the next process half a second
            write_entry(path, cubin)
    return cubin


def architecture_for(capability: tuple[int, int]) -> int:
    """The newest architecture that NVRTC compiles for and that a device of this compute capability runs.

    Raises CudaUnavailable: such a device runs code for its own major version, up to its own minor.
    """
    major, minor = capability
    wanted = 10 * major + minor
    if wanted < OLDEST_ARCHITECTURE:
        raise CudaUnavailable(f"the device's compute capability is {major}.{minor}, below 7.5")
    usable = [known for known in supported_architectures() if 10 * major <= known <= wanted]
    if not usable:
        version = ".".join(map(str, _version()))
        raise CudaUnavailable(f"NVRTC {version} does not know compute capability {major}.{minor}")
    return max(usable)


def supported_architectures() -> list[int]:
    """What the NVRTC at hand compiles for: 75 for sm_75. Raises CudaUnavailable where there is none."""
    return list(_check(_load_nvrtc().nvrtcGetSupportedArchs()))


def _version() -> tuple[int, int]:
    _, major, minor = _load_nvrtc().nvrtcVersion()
    return major, minor


def _load_nvrtc() -> Any:
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()  # the library itself is found at the first call
    except ImportError as error:
        raise CudaUnavailable(
            f"cuda-bindings, which comes with CUDA builds of PyTorch, is missing ({error})"
        ) from error
    except RuntimeError as error:
        raise CudaUnavailable(f"NVRTC, which comes with CUDA builds of PyTorch, is missing ({error})") from error
    return nvrtc


def _check(results: tuple[Any, ...]) -> Any:
    """The value behind the status that every call of the bindings returns first."""
    status, *values = results
    if status.value != 0:
        raise CudaUnavailable(f"NVRTC failed: {status.name}")
    return values[0] if values else None
