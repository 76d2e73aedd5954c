"""`aligncli watch` as a user types it, beside a training and afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command_line import TINY_SHAPES, Run


def test_a_finished_run_is_told_at_once(run: Run, trained_run: Path) -> None:
    ended = run("watch", trained_run)
    assert ended.code == 0, ended.stderr
    assert "finished after 2 of 2 iterations" in ended.stdout
    once = run("watch", trained_run, "--once")
    assert once.code == 0
    for expected in ("finished", "loss", "adm box", "lr "):
        assert expected in once.stdout
    told = run("watch", trained_run, "--once", "--json").json
    assert (told["state"], told["iteration"], told["iterations"]) == ("finished", 2, 2)
    assert told["loss"] > 0


def test_a_broken_folder_is_named(run: Run, trained_run: Path, tmp_path: Path) -> None:
    assert "holds no recipe.json" in run("watch", tmp_path).error_line()
    broken = tmp_path / "broken"
    shutil.copytree(trained_run, broken)
    (broken / "metrics.jsonl").write_text("not json\n")
    assert "metrics.jsonl, line 1" in run("watch", broken, "--once").error_line()


def test_a_run_that_did_not_finish_ends_in_one_line_and_exit_code_2(
    run: Run, trained_run: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(trained_run, stopped)
    (stopped / "metrics.jsonl").write_text('{"iteration": 1, "lr": 0.1, "loss": 2.0}\n')
    values = json.loads((stopped / "progress.json").read_text())
    (stopped / "progress.json").write_text(json.dumps(values | {"stage": "stopped", "iteration": 1}))
    told = run("watch", stopped).error_line()
    assert f"stopped after 1 of 2 iterations; go on with: aligncli train --resume --out {stopped}" in told
    failed = values | {"stage": "failed", "iteration": 1, "reason": "the \x1b[2J disk"}
    (stopped / "progress.json").write_text(json.dumps(failed))
    assert "failed after 1 of 2 iterations: the �[2J disk" in run("watch", stopped).error_line()
    assert run("watch", stopped, "--once", "--json").json["state"] == "failed"
    (listed,) = run("runs", "list", stopped, "--json").json
    assert listed["state"] == "failed"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_training_is_followed_until_it_is_killed(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "aligncli", "train", "--device", "cpu", "--threads", "1", "--out", str(out)]
    command += [*TINY_SHAPES, "--set", "schedule.iterations=100000"]
    training = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    watching = None
    try:
        until = time.monotonic() + 180
        while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").stat().st_size:
            assert training.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        told = run("watch", out, "--once", "--json").json
        assert told["state"] == "training"
        assert told["images_per_second"] is None or told["images_per_second"] > 0
        watch = [sys.executable, "-m", "aligncli", "watch", str(out), "--every", "0.2"]
        watching = subprocess.Popen(watch, stderr=subprocess.PIPE, text=True)
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith("training ")
        training.send_signal(signal.SIGKILL)
        training.wait()
        _, said = watching.communicate(timeout=60)
        assert watching.returncode == 2
        assert "killed, or hanging" in said.splitlines()[-1]
    finally:
        for process in (training, watching):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
