"""One training on several processes: the options that start them, and what each of them does.

They are started here (--nproc), or by torchrun, whose variables say so. Whatever is wrong with the command line is
found before the first one starts, or by all of them together, and told once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.guard import guard
from aligncli.cli.render import Output, show_log
from aligncli.cli.train_job import TrainJob, run_job
from aligncli.engine.interrupt import sigterm_as_exit
from aligncli.environment import Place, launched_place, slurm_job
from aligncli.errors import DeviceError, UserError

if TYPE_CHECKING:
    from aligncli.engine.distributed import World
    from aligncli.engine.elastic import Processes

NumProcesses = Annotated[
    int | None,
    typer.Option("--nproc", metavar="N", min=1, help="Processes on this machine, one a GPU, that share each batch."),
]
NumMachines = Annotated[
    str | None, typer.Option("--nodes", metavar="MIN[:MAX]", help="Machines; each runs this same command.")
]
Rendezvous = Annotated[
    str | None, typer.Option("--rdzv", metavar="HOST:PORT", help="Where machines meet: one of them, and a free port.")
]
MaxRestarts = Annotated[
    int,
    typer.Option(
        "--max-restarts", metavar="N", min=0, help="How often to go on from the last checkpoint when a process died."
    ),
]


def asked_processes(
    nproc: int | None, nodes: str | None, rendezvous: str | None, max_restarts: int, *, slurm: bool = False
) -> Processes | None:
    """What the options say; None where they ask for no process beside this one. Raises UserError.

    In a `slurm` job machines know where to meet, and there are as many as it was given.
    """
    if nproc is None and nodes is None and rendezvous is None:
        return None
    if launched_place() is not None:
        raise UserError("--nproc, --nodes and --rdzv start processes, and torchrun has done so: drop one of the two")
    low, high = _machines(nodes or "1")
    if slurm and (rendezvous is not None or low != high):
        raise UserError("a Slurm job has a fixed number of machines, which find each other: --nodes N without --rdzv")
    if high > 1 and rendezvous is None and not slurm:
        raise UserError(f"--nodes {nodes} needs a place to meet: add --rdzv HOST:PORT, the same on every machine")
    if rendezvous is not None and not rendezvous.rpartition(":")[2].isdecimal():
        raise UserError(f"--rdzv {rendezvous} has no port: expected HOST:PORT, such as 10.0.0.1:29400")
    from aligncli.engine.elastic import Processes

    return Processes(
        per_machine=nproc or 1,
        min_machines=low,
        max_machines=high,
        rendezvous=rendezvous or "",
        max_restarts=max_restarts,
    )


def launch(job: TrainJob, processes: Processes) -> None:
    """Start the processes of a training and wait for them. Raises UserErrors, and typer.Exit with their exit code."""
    from aligncli.engine.elastic import run_processes
    from aligncli.engine.launch import threads_for

    count = processes.per_machine
    if check_processes(job, processes).startswith("cuda"):
        _check_gpus(count)
    threads = job.threads or threads_for(count) or None
    code = run_processes(processes, work, replace(job, threads=threads))
    if code:
        raise typer.Exit(code)


def check_processes(job: TrainJob, processes: Processes) -> str:
    """The first one's device. Raises UserErrors where they cannot share the batch or the device."""
    from aligncli.engine.distributed import rank_device
    from aligncli.engine.schedule import check_schedule

    count = processes.per_machine
    for machines in range(processes.min_machines, processes.max_machines + 1):
        check_schedule(job.recipe.schedule, num_ranks=machines * count)
    return rank_device(job.device, Place(rank=0, size=count, local_rank=0, local_size=count, restarts=0))


def work(job: TrainJob) -> int:
    """What a started process does; returns its exit code. It goes on wherever there is a checkpoint."""
    place = launched_place()
    assert place is not None
    if place.rank == 0:
        show_log("aligncli_ext")

    def run() -> None:
        with joined(job.device) as (world, device):
            with together(world):
                resume = has_checkpoint(job.run_dir)
                parts = options.read_code(job.code)
            if place.rank == 0 and place.restarts:
                Output(json=job.json).note(f"restart {place.restarts}: a process of this training had died")
            run_job(replace(job, device=device), parts, resume=resume, world=world)

    with sigterm_as_exit():
        return guard(run, debug=job.debug)


@contextmanager
def joined(device: str) -> Iterator[tuple[World | None, str]]:
    """The world that this process was started into, and its device in it; None, and `device`, where it was not."""
    place = launched_place()
    if place is None:
        yield None, device
        return
    from aligncli.engine.distributed import join_world, rank_device

    device = rank_device(device, place)
    with join_world(place, device) as world:
        yield world, device


def together(world: World | None) -> AbstractContextManager[object]:
    """World.together, where there is a world."""
    return nullcontext() if world is None else world.together()


def was_restarted() -> bool:
    """Whether this process takes the place of one that died, or its Slurm job was requeued."""
    place, slurm = launched_place(), slurm_job()
    return (place is not None and place.restarts > 0) or (slurm is not None and slurm.restarts > 0)


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a training can go on there."""
    from aligncli.engine.run_folder import RunFolder

    return RunFolder(run_dir).newest_checkpoint() > 0


def _machines(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
        raise UserError(f"--nodes {text}: expected a number of machines such as 2, or a range such as 2:4")
    return int(low), int(high or low)


def _check_gpus(count: int) -> None:
    import torch

    available = torch.cuda.device_count()
    if count > available:
        raise DeviceError(
            f"--nproc {count} needs {count} GPUs and this machine has {available}: lower it, or use --device cpu"
        )
