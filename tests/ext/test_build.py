"""The CPU library is built once, by whom and whenever it is needed first, and never in the way of anything.

Most tests use a compiler that counts its calls and copies the library that this machine has built already.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aligncli_ext import build, cpu, places
from aligncli_ext.build import BuildError, compile_library, find_compiler, library_name

ROOT = Path(__file__).parents[2]
COMPUTE = """
import torch
from aligncli.ops import choose_backend, roi_conv
roi_conv(torch.randn(1, 3, 5, 5), torch.rand(1, 4, 4) * 40, torch.randn(2, 3, 3, 3), stride=8)
chosen = choose_backend()
print(chosen.name, chosen.reason)
"""


class Compiler:
    """A program that takes a compiler's arguments; it can be told to fail, or to write something else."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.path, self._calls, self._mode, self._good = folder / "c++", folder / "calls", folder / "mode", library
        self._bad = folder / "not a library"
        self._bad.write_bytes(b"not a library")
        self.path.write_text(
            "#!/bin/sh\n"
            f'echo called >> "{self._calls}"\n'
            f'. "{self._mode}"\n'
            'while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done\n'
            "sleep 0.3\n"
            'cp "$library" "$out"\n'
        )
        self.path.chmod(0o755)
        self.succeed()

    def succeed(self) -> None:
        self._mode.write_text(f'library="{self._good}"\n')

    def fail(self) -> None:
        self._mode.write_text("echo 'In file included from a:' >&2; echo 'x.cpp:1:2: error: no luck' >&2; exit 1\n")

    def end_with(self, line: str) -> None:
        self._mode.write_text(line + "\n")

    def write_nonsense(self) -> None:
        self._mode.write_text(f'library="{self._bad}"\n')

    def num_calls(self) -> int:
        return len(self._calls.read_text().splitlines()) if self._calls.exists() else 0


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Stands for the compiler's work where nothing is loaded."""
    path = tmp_path / "library"
    path.write_bytes(b"a library")
    return path


@pytest.fixture
def compiler(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """The compiler of an empty cache; loading is replaced, as PyTorch takes the operators only once."""

    def load(path: Path) -> Path:
        if path.read_bytes() != b"a library":
            raise OSError(f"Could not load this library: {path}")
        return path

    monkeypatch.setattr(cpu, "_load", load)
    monkeypatch.setattr(cpu, "_loaded", lambda: None)
    monkeypatch.setattr(places, "BUNDLED_DIRECTORY", tmp_path / "bundled")
    made = Compiler(tmp_path, library)
    monkeypatch.setenv("CXX", str(made.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def load() -> cpu.CpuKernels:
    """As a new process would."""
    return cpu.load_cpu_kernels.__wrapped__()


def test_the_first_use_builds_and_says_so_in_one_line(compiler, tmp_path, caplog):
    assert cpu.find_cpu_kernels().reason == "not built yet: the first use builds it"
    assert compiler.num_calls() == 0
    found = load()
    assert found.library is not None
    assert found.library.is_relative_to(tmp_path / "cache" / "aligncli")
    assert [record.getMessage() for record in caplog.records] == [
        "building the CPU kernel of RoIConv, once (about 10 seconds)"
    ]
    assert load() == cpu.find_cpu_kernels() == found
    assert compiler.num_calls() == 1
    assert len(caplog.records) == 1


def test_a_failed_build_is_no_error_and_is_not_tried_again_by_every_process(compiler):
    compiler.fail()
    found = load()
    assert found == cpu.CpuKernels(None, f"{compiler.path} failed: x.cpp:1:2: error: no luck")
    assert load() == cpu.find_cpu_kernels() == found
    assert compiler.num_calls() == 1


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("collect2: error: ld returned 1 exit status", "ld: a.o: multiple definition of b"),
        ("clang: error: linker command failed with exit code 1 (use -v to see invocation)", "ld: undefined reference"),
    ],
)
def test_the_reason_of_a_failed_link_is_the_linker_s(tmp_path, last, told):
    program = tmp_path / "c++"
    program.write_text(f'#!/bin/sh\necho "{told}" >&2; echo "{last}" >&2; exit 1\n')
    program.chmod(0o755)
    with pytest.raises(BuildError, match=re.escape(told)):
        compile_library([str(program)], tmp_path / "library.so")


@pytest.mark.parametrize(
    "line",
    [
        "kill -9 $$",
        "echo '/tmp/cc.s: error writing to /tmp/cc.s: No space left on device' >&2; exit 1",
        "echo 'c++: fatal error: Killed signal terminated program cc1plus' >&2; exit 1",
        "echo 'cc1plus: out of memory allocating 65536 bytes' >&2; exit 1",
    ],
)
def test_what_may_be_gone_the_next_time_is_tried_again(compiler, line):
    compiler.end_with(line)
    assert load().reason is not None
    compiler.succeed()
    assert load().library is not None


def test_a_compiler_that_takes_too_long_may_be_quicker_the_next_time(compiler, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build, "TIMEOUT_SECONDS", 0.1)
        assert "took more than 0.1 seconds" in str(load().reason)
    assert load().library is not None


def test_a_user_without_a_home_is_told_what_to_set(compiler, monkeypatch, tmp_path):
    """As `docker run --user 12345` has it."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert load().library is not None  # as XDG_CACHE_HOME is set
    monkeypatch.delenv("XDG_CACHE_HOME")
    for found in (load(), cpu.find_cpu_kernels()):
        assert "set XDG_CACHE_HOME to a folder" in str(found.reason)


def test_a_variable_that_is_no_command_line_is_named(compiler, monkeypatch):
    monkeypatch.setenv("CXX", "g++ 'x")
    for found in (load(), cpu.find_cpu_kernels()):
        assert "the variable CXX is no command line" in str(found.reason)


def test_a_failed_build_is_tried_again_on_request(compiler):
    compiler.fail()
    load()
    assert cpu.build_cpu_kernels().library is None
    compiler.succeed()
    assert cpu.build_cpu_kernels().library is not None
    assert compiler.num_calls() == 3
    assert cpu.build_cpu_kernels().library is not None
    assert compiler.num_calls() == 3  # what is built stays
    cpu.load_cpu_kernels.cache_clear()


def test_a_failed_build_is_tried_again_with_another_pytorch(compiler, monkeypatch):
    compiler.fail()
    load()
    compiler.succeed()
    monkeypatch.setattr(torch, "__version__", "9.0")
    assert load().library is not None


@pytest.mark.parametrize("damage", [b"", b"a lib", b"something else"])
def test_a_damaged_library_in_the_cache_is_built_again_once(compiler, damage):
    found = load()
    assert found.library is not None
    found.library.write_bytes(damage)
    assert load() == load() == found
    assert compiler.num_calls() == 2


def test_a_damaged_record_in_the_cache_is_a_missing_one(compiler):
    found = load()
    assert found.library is not None
    for text in ("", "[]", "{"):
        found.library.with_suffix(".json").write_text(text)
        assert load() == found
    assert compiler.num_calls() == 4


def test_a_library_that_does_not_load_is_a_failed_build(compiler):
    compiler.write_nonsense()
    found = load()
    assert found.library is None
    assert found.reason is not None
    assert "does not load" in found.reason
    assert load() == found
    assert compiler.num_calls() == 1


def test_without_a_compiler_the_reason_says_what_to_install(compiler, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert load() == cpu.CpuKernels(None, "there is no C++ compiler: install g++ or clang++, or set CXX to one")


def test_a_cache_that_cannot_be_written_is_no_error(compiler, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reason = load().reason
    assert reason is not None
    assert "Not a directory" in reason


def test_another_compiler_builds_its_own_library(compiler, tmp_path, library, monkeypatch):
    first = load().library
    (tmp_path / "other").mkdir()
    other = Compiler(tmp_path / "other", library)
    monkeypatch.setenv("CXX", f"{other.path} -v")
    second = load().library
    assert first != second
    assert other.num_calls() == 1


def test_a_library_that_came_with_the_wheel_is_taken_if_it_loads(compiler, tmp_path):
    bundled = tmp_path / "bundled" / library_name()
    bundled.parent.mkdir()
    bundled.write_bytes(b"a library")
    assert load().library == cpu.find_cpu_kernels().library == bundled
    bundled.write_bytes(b"of another system")
    found = load().library
    assert found is not None
    assert found != bundled
    assert compiler.num_calls() == 1


def test_windows_is_told_why(compiler, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert "PyTorch for Windows takes neither" in str(load().reason)


# ---------------------------------------------------------------- processes, and the real compiler


def environment(tmp_path: Path, cxx: Path | str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "ALIGNCLI_ROI_CONV"}
    return {**kept, "CXX": str(cxx), "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def real_library() -> Path:
    found = cpu.load_cpu_kernels()
    if found.library is None:
        pytest.skip(f"no native kernels: {found.reason}")
    return found.library


def test_processes_that_come_at_the_same_time_build_once(tmp_path, real_library):
    compiler = Compiler(tmp_path, real_library)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMPUTE],
            cwd=ROOT,
            env=environment(tmp_path, compiler.path),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in processes] == ["native it is the fastest one\n"] * 2
    assert compiler.num_calls() == 1


def test_a_process_keeps_the_library_that_it_has(tmp_path, real_library):
    """Another compiler's would define the same operators a second time, which ends a process."""
    (tmp_path / "other").mkdir()
    first, other = Compiler(tmp_path, real_library), Compiler(tmp_path / "other", real_library)
    code = COMPUTE + (
        "import os\n"
        "from aligncli_ext import cpu\n"
        "before = cpu.load_cpu_kernels()\n"
        f"os.environ['CXX'] = {str(other.path)!r}\n"
        "cpu.load_cpu_kernels.cache_clear()\n"
        "print(before == cpu.find_cpu_kernels() == cpu.build_cpu_kernels())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(tmp_path, first.path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "True"
    assert (first.num_calls(), other.num_calls()) == (1, 0)


def test_importing_builds_nothing(tmp_path, real_library):
    compiler = Compiler(tmp_path, real_library)
    code = "import aligncli.ops; from aligncli.ops import RoIConv2d; RoIConv2d(3, 4, 3, stride=8)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(tmp_path, compiler.path), check=True)
    assert compiler.num_calls() == 0


def test_with_a_broken_compiler_everything_runs_and_the_reason_is_kept(tmp_path):
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", COMPUTE],
            cwd=ROOT,
            env=environment(tmp_path, "false"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.startswith("portable the native one is not to be had: ")
        assert "failed: exit code 1, and it said nothing" in ended.stdout
    (record,) = (tmp_path / "cache" / "aligncli" / "cpu").glob("*.json")
    assert "failed" in json.loads(record.read_text())["failure"]


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_the_sources_compile_without_a_warning_and_the_library_computes(tmp_path, name, monkeypatch):
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    monkeypatch.setenv("CXX", name)
    command = find_compiler()
    compile_library([*command, "-Wall", "-Wextra", "-Werror"], tmp_path / "library.so")
    code = (
        f"import torch; torch.ops.load_library({str(tmp_path / 'library.so')!r})\n"
        "columns = torch.empty(1, 9 * 2)\n"
        "box = torch.tensor([[[8.0, 8.0, 32.0, 32.0]]])\n"
        "features = torch.arange(50.0).view(1, 5, 5, 2)\n"
        "torch.ops.aligncli_ext.gather(features, box, 0, 3, 3, 0, 3, 8.0, columns)\n"
        "assert torch.equal(columns.view(3, 3, 2), features[0, 1:4, 1:4])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
