"""What a Slurm job runs: it tells the training to stop once, whatever Slurm signals to whom."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from aligncli.engine.slurm.node import Outcome, run_command

CALL = "import sys; from aligncli.engine.slurm.node import run_command; from pathlib import Path; print({})"
TRAINING = "trap 'echo told; told=1' TERM; echo begun; while [ ! -f $0 ]; do sleep 0.02; done; exit ${told:-9}"


def wait_for(path, text):
    for _ in range(500):
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{text!r} never came into {path}")


def test_the_training_is_told_to_stop_once_and_has_the_time_it_needs(tmp_path):
    log, go_on = tmp_path / "run.log", tmp_path / "go-on"
    call = CALL.format("run_command(['sh', '-c', sys.argv[1], sys.argv[2]], Path(sys.argv[3]))")
    command = [sys.executable, "-c", call, TRAINING, go_on, log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as node:
        try:
            wait_for(log, "begun")
            os.killpg(node.pid, signal.SIGUSR2)  # proctrack/linuxproc signals every process of a job
            wait_for(log, "told")
            os.kill(node.pid, signal.SIGTERM)  # the time limit, while the checkpoint is being written
            time.sleep(0.2)
            go_on.touch()
            printed, _ = node.communicate(timeout=10)
        finally:
            with suppress(ProcessLookupError):  # all have ended, if nothing failed
                os.killpg(node.pid, signal.SIGKILL)
    assert printed.startswith("Outcome(exit_code=1, seconds=")
    assert printed.strip().endswith("signal='SIGUSR2')")
    assert log.read_text().splitlines() == ["begun", "told"]


def test_slurm_waits_without_torch():
    loaded = CALL.format("sorted({'torch', 'submitit', 'numpy'} & set(sys.modules))")
    printed = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"


def test_an_ending_of_its_own_names_no_signal(tmp_path):
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        outcome = run_command(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path / "run.log")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert outcome == Outcome(3, outcome.seconds)
    assert 0 < outcome.seconds < 10
    assert (tmp_path / "run.log").read_text() == "out\nerr\n"
