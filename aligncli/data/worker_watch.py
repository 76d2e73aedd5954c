"""What a loader's workers are doing, for when one of them dies or hangs.

Each notes the image that it is at in shared memory, and can be made to write its stack to a file: a damaged file
may crash a decoder, a network drive may never answer, and then the image's name is what a user needs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import torch

from aligncli.data.dataset import DetectionDataset
from aligncli.data.worker_signals import leave_signals_to_the_main_process
from aligncli.errors import DataError

STACK_SIGNAL = getattr(signal, "SIGUSR1", None)  # not on Windows, where a hung worker's stack stays unknown
SECONDS_FOR_A_STACK = 0.5


class WorkerWatch:
    """Shared by the main process, which asks, and the workers, which note; made before they start.

    Args:
        workers: of the loader; with 0 nothing is watched.
        folder: for their stacks; it exists as long as they do, and of a killed main process they remove it.
    """

    def __init__(self, workers: int, folder: Path) -> None:
        self._places = torch.full((workers, 2), -1, dtype=torch.int64).share_memory_()  # process id, image's index
        self._folder = folder

    def start(self, worker: int) -> None:
        """The loader's `worker_init_fn`."""
        leave_signals_to_the_main_process(orphaned=partial(shutil.rmtree, self._folder, ignore_errors=True))
        self._places[worker, 0] = os.getpid()
        self._stack = stack = self._stack_path(worker).open("w")  # stays open as long as the worker lives
        faulthandler.disable()  # or one that the main process had enabled stays, behind torch's own handlers
        faulthandler.enable(stack, all_threads=False)
        if STACK_SIGNAL is not None:
            faulthandler.register(STACK_SIGNAL, stack, all_threads=False)

    def at(self, index: int) -> None:
        """Note in a worker that image `index` comes next."""
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self._places[worker.id, 1] = index

    def explain(self, error: RuntimeError, dataset: DetectionDataset) -> DataError | None:
        """What to tell a user of torch's error about a worker; None for any other error.

        Of workers that died those are named, of others that all wait for, one after the other.
        """
        text = str(error)
        if text.startswith("Caught "):  # raised in a worker, which lives on: it speaks for itself
            return None
        hung = "DataLoader timed out" in text
        if "DataLoader" not in text or not ("worker" in text or hung):
            return None
        alive = {row for row, (pid, _) in enumerate(self._places.tolist()) if pid > 0 and _is_alive(pid)}
        suspects = sorted(alive if hung else set(range(len(self._places))) - alive)
        described = "; ".join(self._describe(row, dataset, ask=hung) for row in suspects) or "which one is unknown"
        what = "do not answer" if hung else "died"
        return DataError(
            f"data workers {what}: {described}. Look at these images with `aligncli data check`, or see the error "
            "itself with --set input.workers=0"
        )

    def _describe(self, worker: int, dataset: DetectionDataset, *, ask: bool) -> str:
        """The image that a worker is at, and the innermost line of its stack where that is known."""
        pid, index = self._places[worker].tolist()
        name = dataset.ground_truth()["images"][index]["file_name"] if index >= 0 else "no image yet"
        if ask and STACK_SIGNAL is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, STACK_SIGNAL)
            time.sleep(SECONDS_FOR_A_STACK)
        lines = self._stack_path(worker).read_text(encoding="utf-8", errors="replace").splitlines()
        frames = [line.strip() for line in lines if line.lstrip().startswith("File ")]
        return f"worker {worker} at {name!r}" + (f", in {frames[0]}" if frames else "")

    def _stack_path(self, worker: int) -> Path:
        return self._folder / f"{worker}.txt"


def _is_alive(pid: int) -> bool:
    """Whether a child still runs. It is left to its owner to collect what has ended."""
    if not hasattr(os, "waitid"):
        return True
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:  # its owner was quicker
        return False
