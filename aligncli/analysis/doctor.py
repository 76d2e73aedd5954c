"""What a bug report has to say of a machine: versions, devices, threads, room, and whether torchvision works.

torchvision's compiled operators belong to one version of torch; beside another, its very import fails. It is imported
in `check_torchvision` alone, and nothing that this module imports needs it.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from aligncli.environment import processor_name
from aligncli.errors import first_line

PACKAGES = ("numpy", "pillow", "pydantic", "safetensors", "pycocotools", "hotcoco", "matplotlib", "typer", "rich")
EXTRAS = ("onnx", "onnxruntime", "onnxscript", "submitit")
WHEELS = "https://download.pytorch.org/whl"
# Two batches a worker wait there: 4 workers, 16 images of 800 x 1333 pixels
ENOUGH_SHARED_MEMORY = 400e6
ENOUGH_DISK = 1e9  # bytes: checkpoints of a ResNet-50 take some 700 MB
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "max 100000", or microseconds of CPU time a period
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Torchvision:
    """version: None where it is not installed. remedy: a command line that mends what `detail` tells; None if sound."""

    version: str | None
    works: bool
    detail: str
    remedy: str | None

    @property
    def problem(self) -> str | None:
        """One line, as in `find_problems`."""
        return None if self.works else f"torchvision: {self.detail}; mend it with: {self.remedy}"


@dataclass(frozen=True)
class Room:
    """Bytes where `what` goes."""

    what: str
    path: str
    free: int
    total: int


@dataclass(frozen=True)
class Threads:
    """Of torch, within an operator and between them; processors of the machine, and those that this process may use."""

    torch: int
    interop: int
    processors: int
    usable: float


def package_versions() -> dict[str, str | None]:
    """Of what aligncli uses beside torch; None for what is not installed."""
    return {name: _version(name) for name in (*PACKAGES, *EXTRAS)}


def describe_devices() -> list[str]:
    """The CPU, every CUDA device, and Apple's GPU, one line each."""
    devices = [f"cpu: {processor_name()}, {torch.backends.cpu.get_cpu_capability()}"]
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index}: {found.name}, {found.total_memory / 1e9:.0f} GB, sm_{found.major}{found.minor}")
    if torch.backends.mps.is_available():
        devices.append("mps: Apple's GPU")
    return devices


def check_torchvision() -> Torchvision:
    """Whether torchvision can be imported and its operators compute, on the CPU and on a GPU."""
    found = _version("torchvision")
    if found is None:
        return Torchvision(None, False, "it is not installed", install_line())
    try:
        from torchvision.ops import deform_conv2d, nms, roi_align

        places = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        for device in places:
            box = torch.tensor([[0.0, 0.0, 4.0, 4.0]], device=device)
            pixels = torch.ones(1, 1, 4, 4, device=device)
            nms(box, box[:, 0], 0.5)
            roi_align(pixels, [box], 1)
            deform_conv2d(pixels, torch.zeros(1, 2, 4, 4, device=device), pixels[:, :, :1, :1])
    except Exception as error:  # noqa: BLE001  (an import of other people's binaries can fail with anything)
        return Torchvision(found, False, _explain(error, found), install_line())
    return Torchvision(found, True, f"nms, roi_align and deform_conv2d compute on {' and '.join(places)}", None)


def install_line() -> str:
    """The command that installs the torchvision that belongs to the torch that is there."""
    release, _, build = torch.__version__.partition("+")  # 2.14.1+cu130: built for CUDA 13.0
    index = f" --index-url {WHEELS}/{build}" if build.startswith(("cpu", "cu", "rocm", "xpu")) else ""
    return f'pip uninstall --yes torchvision && pip install torchvision "torch=={release}"{index}'


def measure_disk(cache: Path | None) -> list[Room]:
    """Where runs, compiled kernels (`cache`, which need not exist) and temporary files go."""
    places = {"runs": Path.cwd(), "kernels": cache, "temporary files": Path(tempfile.gettempdir())}
    return [_room(what, path) for what, path in places.items() if path is not None]


def measure_shared_memory() -> Room | None:
    """What worker processes hand batches over through; None where the system has no such limit."""
    return _room("batches of workers", SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None


def count_threads() -> Threads:
    """Threads and processors; a container's share of the processors counts."""
    processors = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else processors
    return Threads(torch.get_num_threads(), torch.get_num_interop_threads(), processors, min(allowed, _quota()))


def find_problems(disk: list[Room], shared_memory: Room | None, threads: Threads) -> list[str]:
    """One line for each thing that may go wrong, with what mends it."""
    problems = [
        f"disk: {room.free / 1e6:.0f} MB are free for {room.what} in {room.path}: make room"
        for room in disk
        if room.free < ENOUGH_DISK
    ]
    if shared_memory and shared_memory.total < ENOUGH_SHARED_MEMORY:
        problems.append(
            f"shared memory: {shared_memory.path} holds {shared_memory.total / 1e6:.0f} MB, and workers that load data "
            "die where it is full: start the container with --shm-size=2g, or train with --set input.workers=0"
        )
    if threads.torch > max(1, threads.usable):
        problems.append(
            f"threads: torch uses {threads.torch} on {threads.usable:g} processors that this process may use: "
            f"add --threads {max(1, int(threads.usable))}"
        )
    return problems


def describe_platform() -> dict[str, str | None]:
    """aligncli, Python, torch with its CUDA, torchvision, and the system."""
    return {
        "aligncli": _version("aligncli"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
    }


def _explain(error: Exception, found: str) -> str:
    if "torchvision::" in str(error):  # "operator torchvision::nms does not exist"
        return (
            f"{first_line(error)}: torchvision {found} was built for another torch than {torch.__version__}, which "
            "cannot load its compiled operators"
        )
    return f"torchvision {found} cannot be used beside torch {torch.__version__} ({first_line(error)})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _room(what: str, path: Path) -> Room:
    existing = next(place for place in (path, *path.parents) if place.exists())
    usage = shutil.disk_usage(existing)
    return Room(what, str(path), usage.free, usage.total)


def _quota() -> float:
    """Processors' worth of time that a Linux container may use, without end where nothing limits it."""
    try:
        share, period = CPU_QUOTA.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if share == "max" else int(share) / int(period)
