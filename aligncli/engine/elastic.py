"""Starting the processes of one training through PyTorch's elastic launcher, and ending them together.

The launcher starts N processes here (and waits for those of other machines), and when one dies, all are started
again, a limited number of times. A process that ends on purpose - finished, stopped by a signal, a user's fault that
all know of - returns its exit code, which is no reason to start again.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from aligncli.engine.faults import LONE_FAULT
from aligncli.engine.interrupt import StopRequest, stopping_signals
from aligncli.environment import renew_store_at_restarts
from aligncli.errors import TrainingError

RUN_ID = "aligncli"  # every machine of a training names the same

Job = TypeVar("Job")


@dataclass(frozen=True)
class Processes:
    """How many processes, where, and how often they are started again.

    Args:
        per_machine: on each of `min_machines` to `max_machines`.
        rendezvous: HOST:PORT of one of several machines, where they find each other; empty for this one alone.
    """

    per_machine: int
    min_machines: int = 1
    max_machines: int = 1
    rendezvous: str = ""
    max_restarts: int = 3


def run_processes(processes: Processes, work: Callable[[Job], int], job: Job) -> int:
    """Run `work(job)`, importable and picklable, in every process; returns the highest exit code of them.

    SIGINT and SIGTERM are passed on to the processes once, a second one kills them; the exit code is then that of
    the signal. `work` returns LONE_FAULT to be started again with all others. Raises TrainingError where a
    process died once more than `max_restarts`.
    """
    renew_store_at_restarts()
    with _silent_log(), tempfile.TemporaryDirectory(prefix="aligncli-") as folder:
        stop_file = Path(folder) / "stop"
        config = LaunchConfig(
            min_nodes=processes.min_machines,
            max_nodes=processes.max_machines,
            nproc_per_node=processes.per_machine,
            run_id=RUN_ID,
            rdzv_backend="c10d",
            rdzv_endpoint=processes.rendezvous or "localhost:0",
            local_addr=None if processes.rendezvous else "localhost",
            max_restarts=processes.max_restarts,
            signals_to_handle="SIGHUP,SIGQUIT",  # the others are passed on by `_passing_signals_on`
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        with _passing_signals_on(stop_file) as request:
            try:
                codes = elastic_launch(config, _run_one)(work, job, str(stop_file))
            except ChildFailedError as error:
                if request.signal_number:
                    return 128 + request.signal_number
                rank, failure = error.get_first_failure()
                raise TrainingError(
                    f"{describe_death(rank, failure)}, and --max-restarts {processes.max_restarts} is used up: "
                    "what it wrote above may say why; --resume goes on from the last checkpoint"
                ) from None
    return max(codes.values())


def describe_death(rank: int, failure: ProcessFailure) -> str:
    """`process 1 ended by SIGKILL`."""
    how = f"by {signal.Signals(-failure.exitcode).name}" if failure.exitcode < 0 else f"with code {failure.exitcode}"
    return f"process {rank} ended {how}"


def _run_one(work: Callable[[Job], int], job: Job, stop_file: str) -> int:
    """In a process of its own."""
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()  # Ctrl-C in a terminal reaches the launcher alone, which passes it on once
    if Path(stop_file).exists():  # a signal came before this process could have noticed
        return int(Path(stop_file).read_text(encoding="utf-8"))
    multiprocessing.set_start_method(None, force=True)  # the platform's own for loader workers, not the launcher's
    try:
        code = work(job)
    except KeyboardInterrupt:
        code = LONE_FAULT  # the others may wait for this one
    if code == LONE_FAULT:
        sys.exit(code)
    return code


@contextmanager
def _passing_signals_on(stop_file: Path) -> Iterator[StopRequest]:
    """Send every child the first signal; kill them at the second, or where none is there yet, and leave."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if request.repeats(number):
            return
        children = multiprocessing.active_children()
        if request.signal_number is not None or not children:
            for child in children:
                child.kill()
            raise SystemExit(128 + number)
        request.signal_number, request.received = number, time.monotonic()
        stop_file.write_text(str(128 + number), encoding="utf-8")
        for child in children:
            _send(child.pid, number)

    previous = {number: signal.signal(number, handle) for number in stopping_signals()}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _send(process_id: int | None, number: int) -> None:
    if process_id is not None:
        try:
            os.kill(process_id, number)
        except ProcessLookupError:
            return  # it has just ended


@contextmanager
def _silent_log() -> Iterator[None]:
    """torch's log of its launcher is for developers: what matters of it is told by our own lines."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
