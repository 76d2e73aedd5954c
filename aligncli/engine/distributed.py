"""Training on several processes: what they share, what they agree on, and how they leave together.

A world of one needs no process group, and everything here is then free. With more, gradients and counts of
positives travel on the training's device (gloo on the CPU, NCCL on CUDA), all else on the CPU through gloo, so
that agreeing never waits for a GPU. All ranks call the same collectives in the same order: what may fail
on one rank alone (files, data) stands in `World.together`, where a fault of one becomes the end of all.
"""

import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from aligncli.data.random_stream import RandomStream
from aligncli.engine.faults import LONE_FAULT, USER_FAULT, Elsewhere, LoneFault, ToldFault
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.random_state import seed_everything
from aligncli.environment import Place
from aligncli.errors import DeviceError, UserError, first_line

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The processes that train one model. Rank 0 alone writes and tells."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def replicate(self, model: nn.Module) -> nn.Module:
        """The model with rank 0's state, and gradients that are means over the ranks.

        Norms that train take the statistics of their rank's part of the batch, and keep running ones of their own
        until `share_buffers`.
        """
        if self.size == 1:
            return model
        self.share_buffers(model)
        newer = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # torch 2.15's word for it
        unshared: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        return DistributedDataParallel(model, gradient_as_bucket_view=True, **unshared)

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the buffers of rank 0, which are those that it saves."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def seed_step(self, seed: int, iteration: int) -> None:
        """Several ranks draw from streams of (seed, rank, iteration); one goes on with its own, which is saved."""
        if self.size > 1:
            seed_everything(RandomStream(seed, self.rank, iteration).below(2**53))

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means over the ranks of scalars on the training's device."""
        if self.size == 1 or not values:
            return dict(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        dist.all_reduce(stacked)
        return dict(zip(values, stacked / self.size, strict=True))

    def largest(self, value: int) -> int:
        """The largest of all ranks' integers."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks, on rank 0; nothing elsewhere."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, found)
        return found or []

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value."""
        if self.size == 1:
            return value
        found = [value]
        dist.broadcast_object_list(found)
        return found[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A part that all ranks end before any goes on, and that none survives alone; no collectives inside.

        Where it raises a UserError, OSError or Interrupted on some ranks, the first of them tells it (as
        ToldFault, or Interrupted as it is) and all others raise Elsewhere with the same exit code.
        """
        if self.size == 1:
            yield
            return
        fault: UserError | OSError | Interrupted | None = None
        try:
            yield
        except (UserError, OSError, Interrupted) as error:
            fault = error
        code = 0 if fault is None else fault.exit_code if isinstance(fault, Interrupted) else USER_FAULT
        worst = self.largest(code * self.size + self.size - 1 - self.rank)  # of equal codes, the first rank's
        exit_code, teller = worst // self.size, self.size - 1 - worst % self.size
        if exit_code == 0:
            return
        if fault is None or teller != self.rank:
            raise Elsewhere(exit_code) from fault
        if isinstance(fault, Interrupted):
            raise fault
        raise ToldFault(_describe(fault)) from fault


ALONE = World()


def unsynchronized(replica: nn.Module) -> AbstractContextManager[object]:
    """Inside, gradients of a replica are added up on their rank alone."""
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()


def rank_device(name: str, place: Place) -> str:
    """The device of one of several processes: the GPU of its number on this machine, or the CPU.

    Raises DeviceError for the name of a single GPU, which they cannot share.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if place.size > 1 and name not in ("cpu", "cuda"):
        raise DeviceError(f"--device {name} is one device for {place.size} processes: expected cuda, cpu or auto")
    return f"cuda:{place.local_rank}" if name == "cuda" else name


@contextmanager
def join_world(place: Place, device: str) -> Iterator[World]:
    """Enter the process group that the launcher's environment describes, and leave it on every way out.

    What was not agreed on leaves as an exception that the process is to die of, or others would wait for it:
    LoneFault for a user's fault, Elsewhere with its exit code where another process was lost.
    """
    if place.size == 1:
        yield World()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        if place.local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"{place.local_rank + 1} processes and {torch.cuda.device_count()} GPUs on this machine: "
                "start as many processes as there are GPUs, or use --device cpu"
            )
        torch.cuda.set_device(device)
    try:
        _init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", place)
        yield World(place.rank, place.size)
    except (ToldFault, Elsewhere, Interrupted):
        dist.destroy_process_group()
        raise
    except (UserError, OSError) as error:
        raise LoneFault(f"{_describe(error)} (rank {place.rank})") from error
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        if place.rank > 0:
            raise Elsewhere(LONE_FAULT) from error
        reason = first_line(error).partition(". ")[0]
        raise LoneFault(f"another process has died or cannot be reached ({reason})") from error
    # After other faults the group stays: NCCL's end would wait for ranks that wait for this one
    dist.destroy_process_group()


def _init_process_group(backend: str, place: Place) -> None:
    store, rank, size = next(rendezvous("env://"))
    if place.local_size == place.size:
        # torchrun's restarts share a store: see `renew_store_at_restarts`. Machines count restarts each for itself
        store = dist.PrefixStore(f"restart{place.restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "nccl" in str(error).lower()


def _describe(error: UserError | OSError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return first_line(error)
