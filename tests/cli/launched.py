"""Trainings of several processes as subprocesses, and a look at who runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aligncli.engine.run_folder import RunFolder
from tests.engine.conftest import SECONDS

PATIENCE = 300.0  # seconds; torch alone takes many to import on a busy machine


def train_arguments(run_dir: Path, changes: dict[str, object]) -> list[str]:
    """`train` on the recipe that takes a second, with these changes."""
    settings = SECONDS | {"weights": "none", "input.workers": 0} | changes
    values = [f"--set={key}={value}" for key, value in settings.items()]
    return ["train", "aligndet_small", "--device", "cpu", "--no-report", "--out", str(run_dir), *values]


def start(*arguments: object, launcher: tuple[str, ...] = ("-m", "aligncli")) -> subprocess.Popen[str]:
    """Python with these arguments, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it is so; the process must not end before."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def iterations(run: RunFolder) -> list[int]:
    """Of the lines that a run has written so far, evaluations left out."""
    return [line["iteration"] for line in run.read_metrics() if "evaluation" not in line] if run_exists(run) else []


def run_exists(run: RunFolder) -> bool:
    """Whether anything has been written."""
    return run.metrics_path.is_file()


def workers(launcher: int) -> list[int]:
    """Process ids of a launcher's training processes, in the order of their start."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text())


def wait_until_gone(groups: Sequence[int]) -> None:
    """Until no process of these process groups is left; Python's own helpers end shortly after the others."""
    deadline = time.monotonic() + 30
    for group in groups:
        while is_running(group):
            assert time.monotonic() < deadline, f"process group {group} has not ended"
            time.sleep(0.05)


def is_running(group: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
