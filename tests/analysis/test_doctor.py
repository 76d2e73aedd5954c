"""What a machine has, and which line says what will go wrong."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from aligncli.analysis import doctor
from aligncli.analysis.doctor import Room, Threads

GB = 10**9
ROOMY = Room("runs", "/here", 50 * GB, 100 * GB)
FITTING = Threads(torch=4, interop=4, processors=8, usable=4)


def test_a_sound_machine_has_no_problems():
    assert doctor.find_problems([ROOMY], Room("batches", "/dev/shm", 0, GB), FITTING) == []
    assert doctor.find_problems([ROOMY], None, FITTING) == []


def test_a_container_s_small_shared_memory_is_a_problem_with_its_remedy():
    (line,) = doctor.find_problems([ROOMY], Room("batches", "/dev/shm", 64 * 10**6, 64 * 10**6), FITTING)
    assert line.startswith("shared memory: /dev/shm holds 64 MB")
    assert "--shm-size" in line
    assert "input.workers=0" in line


def test_a_full_disk_and_more_threads_than_processors_are_problems():
    full = Room("kernels", "/cache", 3 * 10**6, 100 * GB)
    disk, threads = doctor.find_problems([ROOMY, full], None, Threads(torch=64, interop=1, processors=64, usable=2.5))
    assert disk == "disk: 3 MB are free for kernels in /cache: make room"
    assert threads.endswith("torch uses 64 on 2.5 processors that this process may use: add --threads 2")


@pytest.mark.parametrize(
    ("torch_version", "line"),
    [
        (
            "2.14.1+cu130",
            'pip install torchvision "torch==2.14.1" --index-url https://download.pytorch.org/whl/cu130',
        ),
        ("2.14.1+cpu", 'pip install torchvision "torch==2.14.1" --index-url https://download.pytorch.org/whl/cpu'),
        ("2.14.1", 'pip install torchvision "torch==2.14.1"'),
        ("2.15.0a0+git1234", 'pip install torchvision "torch==2.15.0a0"'),
    ],
)
def test_the_install_line_keeps_torch_and_takes_its_own_index(monkeypatch, torch_version, line):
    monkeypatch.setattr(torch, "__version__", torch_version)
    assert doctor.install_line() == f"pip uninstall --yes torchvision && {line}"


def test_torchvision_works_here():
    found = doctor.check_torchvision()
    assert found.works
    assert found.problem is None


def test_a_missing_torchvision_is_told(monkeypatch):
    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", nothing)
    found = doctor.check_torchvision()
    assert (found.version, found.works) == (None, False)
    assert found.problem
    assert "it is not installed; mend it with: pip" in found.problem
    assert set(doctor.package_versions().values()) == {None}


def test_any_other_failure_of_torchvision_is_quoted(monkeypatch):
    def fail(*_):
        raise RuntimeError("compiled with different CUDA major versions\nand more")

    monkeypatch.setattr("torchvision.ops.nms", fail)
    found = doctor.check_torchvision()
    assert found.detail.endswith("(compiled with different CUDA major versions)")


@pytest.mark.parametrize(("text", "usable"), [("150000 100000", 1.5), ("max 100000", None), ("nonsense", None)])
def test_a_container_s_share_of_the_processors_counts(monkeypatch, tmp_path: Path, text, usable):
    (tmp_path / "cpu.max").write_text(text)
    unlimited = doctor.count_threads().usable
    monkeypatch.setattr(doctor, "CPU_QUOTA", tmp_path / "cpu.max")
    assert doctor.count_threads().usable == min(unlimited, usable or float("inf"))


def test_a_folder_that_is_not_there_yet_has_its_parent_s_room(tmp_path: Path):
    kernels = next(room for room in doctor.measure_disk(tmp_path / "not" / "yet") if room.what == "kernels")
    assert kernels.path.endswith("yet")
    assert 0 < kernels.free <= kernels.total
