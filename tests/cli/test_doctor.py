"""`aligncli doctor` says what there is, and why something is not."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch

from aligncli_ext import cpu
from tests.cli.command_line import Run


@pytest.fixture
def broken_compiler(tmp_path, monkeypatch):
    """On an empty cache."""
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu.load_cpu_kernels.cache_clear()
    yield
    cpu.load_cpu_kernels.cache_clear()


def test_versions_and_backends_are_listed(run: Run):
    ended = run("doctor")
    assert ended.code == 0
    for text in (version("aligncli"), torch.__version__, "native     cpu", "portable   any", "reference  any"):
        assert text in ended.stdout


def test_the_library_is_named_where_there_is_one(run: Run):
    kernels = cpu.load_cpu_kernels()
    if kernels.library is None:
        pytest.skip(f"no native kernels: {kernels.reason}")
    document = run("doctor", "--json").json
    native = {"backend": "native", "device": "cpu", "available": True, "detail": str(kernels.library)}
    assert document["backends"][0] == native
    assert document["torch"] == torch.__version__
    assert run("doctor", "--build").code == 0


def test_what_is_not_built_is_not_built_by_looking(run: Run, broken_compiler, tmp_path):
    ended = run("doctor")
    assert ended.code == 0
    assert "not built yet" in ended.stdout
    assert ended.stderr == "build the CPU kernels now, or try again, with: aligncli doctor --build\n"
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_is_reported_with_the_compilers_words(run: Run, broken_compiler):
    ended = run("doctor", "--build", "--json")
    assert ended.code == 2
    native, *_ = ended.json["backends"]
    assert not native["available"]
    assert native["detail"].endswith("false failed: exit code 1, and it said nothing")
    first, second = ended.stderr.splitlines()
    assert first == "building the CPU kernel of RoIConv, once (about 10 seconds)"
    assert second == f"error: the CPU kernels cannot be built: {native['detail']}"
    assert native["detail"] in run("doctor").stdout  # remembered


def test_a_forced_backend_is_pointed_out(run: Run, monkeypatch):
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "portable")
    assert "ALIGNCLI_ROI_CONV forces portable" in run("doctor").stdout
