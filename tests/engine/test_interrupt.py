"""Ctrl-C in a terminal reaches every process of the run, loader workers included."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aligncli.engine.checkpoint import load_checkpoint
from aligncli.engine.run_folder import RunFolder
from tests.engine.conftest import SECONDS


def start(run_dir: Path) -> subprocess.Popen:
    changes = SECONDS | {"schedule.iterations": 100_000, "schedule.checkpoint_every": 100_000, "weights": "none"}
    settings = [f"--set={key}={value}" for key, value in changes.items()]
    command = [sys.executable, "-m", "aligncli", "train", "aligndet_small", "--out", str(run_dir), *settings]
    return subprocess.Popen(
        [*command, "--set=input.workers=2"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="process groups and their signals are POSIX's")
def test_ctrl_c_ends_with_130_a_checkpoint_and_no_process_left_behind(tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(run.root)
    deadline = time.monotonic() + 120
    while not (run.metrics_path.exists() and run.metrics_path.read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "a checkpoint is saved" in messages.splitlines()[-1]
    assert "Traceback" not in messages
    assert load_checkpoint(run, device="cpu").iteration >= 1
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
