"""`aligncli train --launcher slurm`: a job that goes on by itself, and what cannot be submitted."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from aligncli.catalog import load_recipe
from aligncli.cli.slurm_jobs import training_command
from aligncli.cli.train_job import TrainJob
from aligncli.engine.elastic import Processes
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.slurm.settings import parse_settings
from tests.cli.command_line import Run
from tests.cli.launched import PATIENCE, iterations, train_arguments
from tests.engine.slurm.cluster import Cluster

TO_SLURM = ["--launcher", "slurm", "--slurm", "gpus_per_node=0", "--slurm", "partition=batch"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster.on_path(tmp_path / "cluster", monkeypatch)


@pytest.mark.slow
def test_a_job_that_meets_its_time_limit_requeues_itself_and_ends_with_its_results(
    run: Run, cluster: Cluster, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    changes = {"schedule.iterations": 60, "schedule.checkpoint_every": 1000}
    ended = run(*train_arguments(folder.root, changes), *TO_SLURM, "--json")
    assert ended.code == 0, ended.stderr
    log = Path(ended.json["log"])
    assert ended.json == {"slurm_job": "101", "run": str(folder.root), "recipe": "aligndet_small", "log": str(log)}
    deadline = time.monotonic() + PATIENCE
    while len(iterations(folder)) < 3:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    cluster.signal("101", signal.SIGUSR2)
    while cluster.state("101") not in ("COMPLETED", "FAILED"):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    told = log.read_text()
    assert cluster.state("101") == "COMPLETED", told
    assert "Slurm job 101 is requeued and goes on from the checkpoint" in told
    assert "resumed after iteration" in told
    assert "Traceback" not in told
    assert iterations(folder) == list(range(1, 61))
    assert folder.results_path.is_file()


def test_a_job_is_submitted_once_and_says_how_to_follow_it(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    cluster.hold()
    out = tmp_path / "run"
    ended = run("train", "--out", out, "--seed", 7, *TO_SLURM)
    assert ended.code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == f"submitted Slurm job 101: quickstart into {out}"
    assert str(out / "slurm") in lines[1]
    assert "`scancel 101` ends it" in lines[2]
    script = (cluster.folder / "101.sh").read_text()
    for option in ("partition=batch", "requeue", "nodes=1", "cpus-per-task=8"):
        assert f"#SBATCH --{option}\n" in script
    assert load_recipe(str(out / "slurm" / "recipe.json")) == load_recipe("quickstart").changed({"seed": 7})
    line = run("train", "--out", out, *TO_SLURM).error_line()
    assert f"Slurm job 101 trains into {out} already" in line
    cluster.end("101", "CANCELLED")
    assert run("train", "--out", out, *TO_SLURM).code == 0
    assert cluster.jobs == ["101", "102"]


def test_the_command_of_a_job_says_all_that_was_asked_for(tmp_path: Path) -> None:
    job = TrainJob(load_recipe("quickstart"), tmp_path, Path("parts.py"), "auto", 3, True, False)
    processes = Processes(per_machine=8, min_machines=2, max_machines=2, max_restarts=5)
    command = training_command(job, processes, parse_settings([]), resume=True)
    assert command[1:] == [
        *("-P", "-m", "aligncli", "train", "--out", str(tmp_path), "--device", "cuda", "--threads", "3"),
        *("--code", "parts.py", "--download", "--resume"),
        *("--nproc", "8", "--nodes", "2", "--max-restarts", "5", "--recipe-json"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slurm", "partition=gpu"], "--slurm goes with --launcher slurm"),
        ([*TO_SLURM, "--nodes", "1:2"], "a Slurm job has a fixed number of machines"),
        ([*TO_SLURM, "--nodes", "2", "--rdzv", "a:1"], "--nodes N without --rdzv"),
        ([*TO_SLURM, "--nodes", "2", "--nproc", "3"], "6 processes cannot share"),
        ([*TO_SLURM, "--slurm", "partitoin=gpu"], "did you mean 'partition'?"),
        ([*TO_SLURM, "--slurm", "partition=refuse"], "sbatch refused run: "),
    ],
)
def test_what_cannot_be_submitted_is_one_line(
    run: Run, cluster: Cluster, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in run("train", "--out", tmp_path / "run", *arguments).error_line()
    assert not cluster.jobs


def test_without_slurm_it_is_said_what_is_missing(run: Run, tmp_path: Path) -> None:
    assert "run it on a login node" in run("train", "--out", tmp_path / "run", *TO_SLURM).error_line()
    assert not (tmp_path / "run").exists()
