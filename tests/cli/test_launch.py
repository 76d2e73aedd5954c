"""`aligncli train` on several processes: started, stopped, killed, and wrongly asked for."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from aligncli.engine.checkpoint import load_checkpoint
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.train import train
from tests.cli.command_line import Run, make_data_folder
from tests.cli.launched import PATIENCE, iterations, start, train_arguments, wait_for, wait_until_gone, workers
from tests.engine.conftest import SECONDS
from tests.helpers import tiny_recipe

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.mark.slow
@needs_proc
def test_a_killed_process_is_started_again_with_all_others_and_the_run_ends_with_its_results(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    changes = {"schedule.iterations": 30, "schedule.checkpoint_every": 2}
    process = start(*train_arguments(run.root, changes), "--nproc", 2, "--max-restarts", 1)
    wait_for(lambda: len(iterations(run)) > 4, process)
    first = workers(process.pid)
    os.kill(first[-1], signal.SIGKILL)
    output, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, messages
    assert "restart 1: a process of this training had died" in messages
    assert "resumed after iteration" in messages
    assert "Traceback" not in messages
    assert iterations(run) == list(range(1, 31))
    assert output.count("AP50") == 1
    assert run.results_path.is_file()
    wait_until_gone([process.pid, *first])


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_leaves_one_checkpoint_and_no_process(tmp_path: Path, number: signal.Signals) -> None:
    run = RunFolder(tmp_path / "run")
    changes = {"schedule.iterations": 100_000, "schedule.checkpoint_every": 100_000, "input.workers": 1}
    process = start(*train_arguments(run.root, changes), "--nproc", 2)
    wait_for(lambda: len(iterations(run)) > 1, process)
    started = workers(process.pid)
    assert len(started) == 2
    if number == signal.SIGINT:  # as Ctrl-C in a terminal: to the launcher and all that it shares a group with
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, messages
    assert messages.count("a checkpoint is saved") == 1
    assert "Traceback" not in messages
    assert output == ""
    checkpoint = load_checkpoint(run, device="cpu")
    assert checkpoint.iteration == iterations(run)[-1]
    assert len(list(run.checkpoints_path.iterdir())) == 1
    wait_until_gone([process.pid, *started])


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(tmp_path: Path) -> None:
    changes = {"model.backbone.frozen_norm": True, "input.min_short_side": 64, "schedule.iterations": 3}
    run = RunFolder(tmp_path / "two")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "aligncli")
    process = start(*train_arguments(run.root, changes), launcher=torchrun)
    output, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, messages
    assert output.count("AP50") == 1
    assert messages.count("2 processes with 2 images each") == 1
    train(tiny_recipe("aligndet_small", SECONDS | changes), tmp_path / "one")
    for ours, theirs in zip(run.read_metrics(), RunFolder(tmp_path / "one").read_metrics(), strict=True):
        assert ours.keys() == theirs.keys()
        if "loss" in theirs:
            assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_a_fault_that_only_training_finds_is_one_line_for_all_processes(tmp_path: Path) -> None:
    data = make_data_folder(tmp_path / "data")
    broken = data / "images" / "train3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    arguments = ["train", "photo", "--data", data, "--device", "cpu", "--out", tmp_path / "run", "--batch-size", 4]
    settings = ["--set=weights=none", "--set=input.workers=0", "--set=input.max_short_side=64"]
    process = start(*arguments, *settings, "--set=input.min_short_side=64", "--nproc", 2)
    output, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, messages
    assert output == ""
    faults = [line for line in messages.splitlines() if "error" in line.lower()]
    assert len(faults) == 1, messages
    assert "train3.png" in faults[0]
    assert "Traceback" not in messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nproc", 3, "--batch-size", 4], "3 processes cannot share 4 images"),
        (["--nproc", 2, "--nodes", "1:3", "--rdzv", "a:1", "--batch-size", 8], "6 processes cannot share 8 images"),
        (["--nproc", 2, "--device", "cuda:1"], "--device cuda:1 is one device for 2 processes"),
        (["--nodes", 2], "--rdzv HOST:PORT"),
        (["--nodes", "3:2"], "range such as 2:4"),
        (["--nodes", "two"], "a number of machines"),
        (["--nodes", 2, "--rdzv", "node0"], "has no port"),
    ],
)
def test_processes_that_cannot_be_are_one_line_before_any_starts(
    run: Run, tmp_path: Path, arguments: list[object], message: str
) -> None:
    assert message in run("train", "--out", tmp_path / "run", *arguments).error_line()
    assert not (tmp_path / "run").exists()


def test_a_process_of_torchrun_starts_no_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert "torchrun has done so" in run("train", "--nproc", 2).error_line()
