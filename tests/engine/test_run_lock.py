"""One training a run folder, whoever else is killed, forked or waiting."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from aligncli.engine.run_folder import RunFolder
from aligncli.engine.run_lock import only_training
from aligncli.errors import CheckpointError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")

HOLD = """
import os, sys, time
from pathlib import Path
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.run_lock import only_training
with only_training(RunFolder(Path(sys.argv[1]))):
    if sys.argv[2] == "fork" and os.fork() == 0:
        os.close(1)
        time.sleep(20)  # as a data worker that has not noticed yet
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["alone", "fork"])
def holder(request, tmp_path):
    """Another process that trains in the folder; with "fork" it has a worker."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_second_training_is_refused_with_the_name_of_the_first(holder, tmp_path):
    with (
        pytest.raises(
            CheckpointError, match=rf"process {holder.pid} on \S+ trains there: follow it with `aligncli wat"
        ),
        only_training(RunFolder(tmp_path)),
    ):
        pass


def test_a_killed_training_leaves_the_folder_to_the_next_even_while_its_worker_lives(holder, tmp_path):
    holder.kill()
    holder.wait()
    litter = tmp_path / ".results.json.0a1b2c3d.tmp"
    litter.write_text("[")
    with only_training(RunFolder(tmp_path)):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        assert not litter.exists()


def test_a_file_system_without_locks_lets_it_train(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with only_training(RunFolder(tmp_path)):
        pass


def test_metrics_are_json_whatever_they_hold(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.append_metrics({"iteration": 1, "grad_norm": float("inf"), "loss": float("nan"), "lr": 0.5})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = json.loads(run.metrics_path.read_text(), parse_constant=refuse)
    assert line == {"iteration": 1, "grad_norm": None, "loss": None, "lr": 0.5}
