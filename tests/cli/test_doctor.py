"""`aligncli doctor` says what there is, and why something is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from aligncli_ext import cpu
from tests.cli.command_line import Run

BROKEN_TORCHVISION = """
import torch
torch.library.register_fake("torchvision::nms")(lambda *arguments: None)  # the real one does so too
"""


@pytest.fixture(autouse=True)
def enough_room(monkeypatch):
    """Whatever the machine that runs the tests has."""
    monkeypatch.setattr("aligncli.analysis.doctor.find_problems", lambda *_: [])


@pytest.fixture
def broken_compiler(tmp_path, monkeypatch):
    """On an empty cache, in a process that has loaded nothing yet."""
    monkeypatch.setattr(cpu, "_loaded", lambda: None)
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


def test_room_and_threads_are_told_to_a_bug_report(run: Run):
    document = run("doctor", "--json").json
    assert {room["what"] for room in document["disk"]} == {"runs", "kernels", "temporary files"}
    assert all(0 <= room["free"] <= room["total"] for room in document["disk"])
    assert document["threads"]["torch"] == torch.get_num_threads()
    assert document["packages"]["numpy"] == version("numpy")
    assert document["torchvision_operators"]["works"]
    assert document["problems"] == []


@pytest.fixture(scope="module")
def broken_torchvision(tmp_path_factory) -> dict[str, str]:
    """An environment in which torchvision is of another build than torch."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(BROKEN_TORCHVISION)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[2]}"}


def aligncli(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aligncli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_torchvision_of_another_build_is_explained_with_the_line_that_mends_it(broken_torchvision):
    ended = aligncli("doctor", "--json", env=broken_torchvision)
    assert ended.returncode == 2
    document = json.loads(ended.stdout)
    found = document["torchvision_operators"]
    assert "operator torchvision::nms does not exist" in found["detail"]
    assert f"was built for another torch than {torch.__version__}" in found["detail"]
    release = torch.__version__.partition("+")[0]
    assert found["remedy"].startswith("pip uninstall --yes torchvision && pip install torchvision ")
    assert f'"torch=={release}"' in found["remedy"]
    assert found["remedy"] in document["problems"][0]
    assert document["backends"]  # the rest is told all the same
    assert ended.stderr.splitlines()[-1] == f"error: {document['problems'][0]}"


def test_other_commands_point_to_doctor_where_torchvision_is_broken(broken_torchvision):
    ended = aligncli("recipes", "show", "quickstart", env=broken_torchvision)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: torchvision does not work (operator torchvision::nms does not exist): aligncli doctor says why\n"
    )
