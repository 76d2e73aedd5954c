"""Slurm's signal inside a job stops a training like SIGTERM does, and the job goes back into the queue."""

import os
import signal
from pathlib import Path

import pytest
import typer

from aligncli.catalog import load_recipe
from aligncli.cli import launch, slurm_jobs
from aligncli.cli.train_job import TrainJob
from aligncli.engine.interrupt import SIGNALS, Interrupted, sigterm_as_exit, stop_on_signal, stopping_signals
from aligncli.engine.slurm import node as slurm_node
from aligncli.engine.slurm.node import become_training
from aligncli.environment import SlurmJob, slurm_job
from tests.engine.slurm.cluster import Cluster

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="Slurm's signals are POSIX's")
REQUEUED = 128 + getattr(signal, "SIGUSR2", 0)


@pytest.fixture
def in_job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "101")


@pytest.fixture
def job(tmp_path):
    return TrainJob(load_recipe("quickstart"), tmp_path / "run", None, "cpu", None, False, False)


@pytest.fixture
def cluster(tmp_path, monkeypatch, in_job):
    cluster = Cluster.on_path(tmp_path / "cluster", monkeypatch)
    cluster.end("101", "RUNNING")
    return cluster


def was_requeued(cluster):
    return (cluster.folder / "101.requeued").exists()


def save(job, iteration):
    (job.run_dir / "checkpoints" / f"{iteration:07d}").mkdir(parents=True)


def train(job, leaving):
    """Gets to iteration 9."""
    with slurm_jobs.requeueing(job):
        save(job, 9)
        raise leaving


def test_slurms_signal_is_a_request_to_stop_inside_a_job_alone(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert stopping_signals() == SIGNALS
    monkeypatch.setenv("SLURM_JOB_ID", "101")
    before = signal.getsignal(signal.SIGUSR2)
    with stop_on_signal() as request:
        signal.raise_signal(signal.SIGUSR2)
        assert request.signal_number == signal.SIGUSR2
    assert signal.getsignal(signal.SIGUSR2) is before
    with pytest.raises(SystemExit) as leaving, sigterm_as_exit():
        signal.raise_signal(signal.SIGUSR2)
    assert leaving.value.code == REQUEUED


def test_who_starts_a_training_with_the_signal_ignored_keeps_it_so(in_job):
    """As `run_command` does, which passes it on as SIGTERM."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        assert stopping_signals() == SIGNALS
        with stop_on_signal() as request:
            signal.raise_signal(signal.SIGUSR2)
        assert request.signal_number is None
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("leaving", [Interrupted(Path("run"), 9, signal.SIGUSR2), typer.Exit(REQUEUED)])
def test_a_stopped_training_that_got_further_is_requeued(job, cluster, capsys, leaving):
    save(job, 4)
    with pytest.raises(type(leaving)):
        train(job, leaving)
    assert was_requeued(cluster)
    assert "Slurm job 101 is requeued and goes on from the checkpoint" in capsys.readouterr().err


def test_a_time_limit_without_a_step_is_not_run_into_for_ever(job, cluster):
    save(job, 4)
    with pytest.raises(typer.Exit), slurm_jobs.requeueing(job):
        raise typer.Exit(REQUEUED)
    assert not was_requeued(cluster)


@pytest.mark.parametrize("exit_code", [0, 2, 128 + signal.SIGTERM, 128 + signal.SIGINT])
def test_another_end_of_a_training_requeues_nothing(job, cluster, exit_code):
    with pytest.raises(typer.Exit):
        train(job, typer.Exit(exit_code))
    assert not was_requeued(cluster)


@pytest.mark.parametrize("variable", [{"SLURM_PROCID": "1"}, {"SLURM_JOB_ID": ""}])
def test_one_machine_of_a_job_speaks_for_all(job, cluster, monkeypatch, variable):
    for name, value in variable.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(typer.Exit):
        train(job, typer.Exit(REQUEUED))
    assert not was_requeued(cluster)


@pytest.mark.parametrize("commands", ["refusing", "missing"])
def test_a_job_that_cannot_be_requeued_is_told(job, cluster, monkeypatch, capsys, commands):
    cluster.end("101", "COMPLETING")
    if commands == "missing":
        monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(typer.Exit):
        train(job, typer.Exit(REQUEUED))
    told = capsys.readouterr().err
    assert "Slurm job 101 is not requeued: " in told
    assert ("presently disabled" if commands == "refusing" else "scontrol") in told
    assert told.count("\n") == 1


def test_a_requeued_job_goes_on_as_a_restarted_process_does(monkeypatch, in_job):
    assert slurm_job() == SlurmJob("101", task=0, restarts=0)
    assert not launch.was_restarted()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert launch.was_restarted()


def test_machines_of_a_job_meet_on_the_first_of_them(monkeypatch, in_job):
    started = []
    monkeypatch.setattr(slurm_node.os, "execv", lambda path, command: started.append(command))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[07-08],gpu12")
    become_training(["python", "train"], False)
    become_training(["python", "train"], True)
    become_training(["python", "train"], True)
    alone, first, second = started
    assert alone == ["python", "train"]
    assert first == second  # on every machine
    assert first[:3] == ["python", "train", "--rdzv"]
    host, _, port = first[3].rpartition(":")
    assert host == "gpu07"
    assert 1024 < int(port) < 65536
