"""What the environment says. The one module of aligncli that reads or changes it; imports no torch."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

ROI_CONV_BACKEND = "ALIGNCLI_ROI_CONV"


@dataclass(frozen=True)
class Place:
    """A process's place among those that PyTorch's elastic launcher started.

    rank: 0..size - 1. local_rank: among the `local_size` of this machine. restarts: how often this machine's
    were started again.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    restarts: int


def forced_backend() -> str:
    """The backend of RoIConv that the environment asks for, or auto."""
    return os.environ.get(ROI_CONV_BACKEND) or "auto"


def processor_name() -> str:
    """The processor's model name where the system tells, else its architecture."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def terminal_can_redraw() -> bool:
    """False for the terminals that only append lines (TERM=dumb, such as an editor's shell)."""
    return os.environ.get("TERM", "") not in ("dumb", "unknown")


def let_missing_operators_run_on_the_cpu() -> None:
    """Have torch compute on the CPU what it lacks on Apple's GPUs, operator by operator; read when it is imported."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def launched_place() -> Place | None:
    """Where torchrun or `aligncli train --nproc` put this process; None where neither started it.

    A cluster's own RANK and WORLD_SIZE are not enough: the launcher's restart count tells that it was PyTorch's.
    """
    found = os.environ
    if "TORCHELASTIC_RESTART_COUNT" not in found:
        return None
    return Place(
        rank=int(found["RANK"]),
        size=int(found["WORLD_SIZE"]),
        local_rank=int(found["LOCAL_RANK"]),
        local_size=int(found["LOCAL_WORLD_SIZE"]),
        restarts=int(found["TORCHELASTIC_RESTART_COUNT"]),
    )


@dataclass(frozen=True)
class SlurmJob:
    """The Slurm job that this process belongs to.

    number: its id. task: of this process's step, from 0. restarts: how often Slurm has requeued the job.
    """

    number: str
    task: int
    restarts: int


def slurm_job() -> SlurmJob | None:
    """The Slurm job that this process runs in; None outside of one."""
    found = os.environ
    if "SLURM_JOB_ID" not in found:
        return None
    return SlurmJob(
        number=found["SLURM_JOB_ID"],
        task=int(found.get("SLURM_PROCID", 0)),
        restarts=int(found.get("SLURM_RESTART_COUNT", 0)),
    )


def renew_store_at_restarts() -> None:
    """Make PyTorch's elastic launcher, in this process, give every start of the processes a key-value store of its own.

    By default they share the launcher's, and after a restart they find the addresses of dead processes in it
    (github.com/pytorch/pytorch/issues/135712; seen in torch 2.15).
    """
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
