"""The CUDA kernels compile, without a GPU, for every architecture that is promised, and stay in their registers."""

import re
from dataclasses import replace

import pytest

from aligncli_ext import nvrtc
from aligncli_ext.cache import read_entry
from aligncli_ext.cuda import chunked_program
from aligncli_ext.nvrtc import ELEMENT_TYPES, CudaUnavailable, architecture_for, cached_cubin, compile_kernels

KERNELS = {f"{name}_{width}" for name in ("gather", "scatter", "grad_boxes") for width in ("wide", "narrow")}
# A multiprocessor has 65,536 registers: with 64 a thread it holds 1,024 threads, with 80 it holds 768.
MOST_REGISTERS = {"gather": 64, "scatter": 80, "grad_boxes": 80}


@pytest.fixture(autouse=True)
def architectures() -> list[int]:
    try:
        return nvrtc.supported_architectures()
    except CudaUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "aligncli"


@pytest.mark.parametrize("element_type", ELEMENT_TYPES)
@pytest.mark.parametrize("architecture", [75, 80, 90, 100])
def test_kernels_compile_without_spills_in_few_registers(element_type, architecture, architectures):
    if architecture not in architectures:
        pytest.skip(f"this NVRTC does not compile for sm_{architecture}")
    compiled = compile_kernels(chunked_program(element_type, architecture))
    assert compiled.cubin.startswith(b"\x7fELF")
    usage = register_usage(compiled.report)
    assert usage.keys() == KERNELS
    for kernel, (registers, memory) in usage.items():
        assert registers <= MOST_REGISTERS[kernel.rsplit("_", 1)[0]], kernel
        assert memory == [0, 0, 0], f"{kernel}: stack frame, spill stores and spill loads"


def register_usage(report: str) -> dict[str, tuple[int, list[int]]]:
    """Each kernel's registers, and its bytes of stack frame, spill stores and spill loads."""
    usage = {}
    for section in report.split("Function properties for ")[1:]:
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", section)
        registers = re.search(r"Used (\d+) registers", section)
        assert stack, section
        assert registers, section
        usage[section.split()[0]] = (int(registers[1]), [int(number) for number in stack.groups()])
    return usage


def test_a_source_that_does_not_compile_is_a_reason_with_the_compilers_words(monkeypatch):
    monkeypatch.setitem(nvrtc.ELEMENT_TYPES, "float32", "NoSuchType")
    with pytest.raises(CudaUnavailable, match=r"^NVRTC does not compile the kernels for sm_80: .*NoSuchType.*$"):
        compile_kernels(chunked_program("float32", 80))


def test_kernels_are_compiled_once(cache, monkeypatch):
    first = cached_cubin(chunked_program("bfloat16", 80))
    monkeypatch.setattr(nvrtc, "compile_kernels", None)
    assert cached_cubin(chunked_program("bfloat16", 80)) == first
    (entry,) = cache.iterdir()
    assert entry.name.startswith("roi_conv-bfloat16-sm_80-")


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:-1], lambda content: content[:-1] + b"x"]
)
def test_a_damaged_entry_is_compiled_again(cache, damage):
    first = cached_cubin(chunked_program("float16", 75))
    (entry,) = cache.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert read_entry(entry) is None
    assert cached_cubin(chunked_program("float16", 75)) == first
    assert read_entry(entry) == first


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    occupied = tmp_path / "file"
    occupied.write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    assert cached_cubin(chunked_program("float32", 75)) == compile_kernels(chunked_program("float32", 75)).cubin


def test_another_source_option_or_compiler_is_another_entry(monkeypatch):
    keys = {
        chunked_program("float32", 75).key(),
        chunked_program("float32", 80).key(),
        chunked_program("float16", 75).key(),
    }
    monkeypatch.setattr(nvrtc, "_version", lambda: (99, 1))
    keys.add(chunked_program("float32", 75).key())
    monkeypatch.setattr(nvrtc, "_HEADERS", ("sampling.h",))
    keys.add(chunked_program("float32", 75).key())
    keys.add(replace(chunked_program("float32", 75), definitions=("A=1",)).key())
    keys.add(replace(chunked_program("float32", 75), header=("a.cuh", "")).key())
    keys.add(replace(chunked_program("float32", 75), header=("a.cuh", "more")).key())
    assert len(keys) == 7  # an empty file changes nothing


def test_a_device_gets_the_newest_code_that_it_runs(monkeypatch):
    monkeypatch.setattr(nvrtc, "supported_architectures", lambda: [75, 80, 86, 90, 120])
    assert [architecture_for(one) for one in [(7, 5), (8, 0), (8, 9), (9, 0), (12, 1)]] == [75, 80, 86, 90, 120]
    with pytest.raises(CudaUnavailable, match=r"capability is 7\.0, below 7\.5"):
        architecture_for((7, 0))
    with pytest.raises(CudaUnavailable, match=r"does not know compute capability 10\.0"):
        architecture_for((10, 0))
