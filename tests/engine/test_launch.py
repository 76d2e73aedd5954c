"""Trainings in processes of their own: side by side, not twice, and stopped with a checkpoint."""

import json
import signal
import threading
import time

import pytest

from aligncli.engine import launch
from aligncli.engine.jobs import Progress, training_command
from aligncli.engine.launch import LocalLauncher, devices_for, threads_for
from aligncli.engine.run_folder import RunFolder, training_seconds, write_json
from aligncli.engine.slurm.queue import record_path
from aligncli.engine.study_plan import Job
from aligncli.errors import TrainingError, UserError
from tests.engine.conftest import SECONDS
from tests.engine.processes import ForkedCommand
from tests.helpers import tiny_recipe


class Recorder:
    def __init__(self):
        self.messages, self.stages, self.counts, self.shares = [], [], [], []

    def message(self, text):
        self.messages.append(text)

    def stage(self, name, *, done, total, share):
        self.stages.append((name, done, total))
        self.shares.append(share)

    def runs(self, running, *, ended, waiting):
        self.counts.append((len(running), ended, waiting))


def job(folder, seed=0, *, features=None, starts_from=None, changes=None):
    recipe = tiny_recipe("aligndet_small", SECONDS | {"seed": seed} | (changes or {}))
    # Rows of Table 5 have dots in their names: two of them once shared what with_suffix made of both
    return Job(recipe, folder / f"run0.5-s{seed}", seed, features, starts_from)


LAUNCHER = LocalLauncher(parallel=2, devices=("cpu",))


@pytest.fixture
def forks(monkeypatch):
    """Trainings start soon, and are soon looked at; those of the tests without it are started as a user's are."""
    ForkedCommand.stand_in(monkeypatch)
    monkeypatch.setattr(launch, "SECONDS_BETWEEN_LOOKS", 0.05)


def test_an_iteration_counts_as_much_work_as_its_network_takes(tmp_path):
    jobs = [job(tmp_path, seed, changes={"schedule.iterations": 4}) for seed in range(3)]
    finished, cheap, dear = jobs
    costs = {cheap.run_dir: 1.0, dear.run_dir: 3.0}
    for item, iteration in ((finished, 4), (cheap, 2), (dear, 1)):
        item.run_dir.mkdir()
        write_json(item.run_dir / "recipe.json", item.recipe.model_dump(mode="json"))
        evaluation = {"evaluation": {"AP": 50.0}} if item is finished else {}
        (item.run_dir / "metrics.jsonl").write_text(json.dumps({"iteration": iteration} | evaluation) + "\n")
    recorder = Recorder()
    progress = Progress("training", jobs, recorder, costs)
    assert progress.take_ready(2) == [cheap, dear]
    progress.tell([cheap, dear])
    Progress("training", jobs, recorder).tell([])
    assert recorder.stages == [("training", 4 + 2 + 1, 12), ("training", 4, 12)]
    assert recorder.shares == [(2 * 1 + 1 * 3) / (4 * 1 + 4 * 3), None]


@pytest.mark.slow
def test_two_trainings_run_side_by_side_and_are_not_run_again(tmp_path):
    jobs = [job(tmp_path, 0, features=tmp_path / "features.safetensors"), job(tmp_path, 1)]
    recorder = Recorder()
    LAUNCHER.run("training", jobs, recorder)
    assert all(item.is_finished() for item in jobs)
    assert (tmp_path / "features.safetensors").is_file()
    assert len(recorder.messages) == 2
    assert all(" AP " in message for message in recorder.messages)
    assert recorder.stages[-1] == ("training", 24, 24)
    done = [total for _, total, _ in recorder.stages]
    assert done == sorted(done)
    assert all(sum(counts) == 2 for counts in recorder.counts)
    assert (2, 0, 0) in recorder.counts
    assert recorder.counts[-1] == (0, 2, 0)
    assert all(training_seconds(item.run_dir) > 0 for item in jobs)

    written = RunFolder(jobs[0].run_dir).weights_path.stat().st_mtime_ns
    LAUNCHER.run("training", jobs, Recorder())
    assert RunFolder(jobs[0].run_dir).weights_path.stat().st_mtime_ns == written


@pytest.mark.slow
def test_trainings_share_the_threads_and_one_that_starts_alone_has_them_all(tmp_path, forks, monkeypatch):
    given = []

    def record(*args, threads, **kwargs):
        given.append(threads)
        return training_command(*args, threads=threads, **kwargs)

    monkeypatch.setattr(launch, "training_command", record)
    jobs = [job(tmp_path, seed) for seed in range(3)]
    LAUNCHER.run("training", jobs[:2], Recorder())
    assert given == [threads_for(2)] * 2
    LAUNCHER.run("training", jobs, Recorder())
    assert given[2:] == [threads_for(1)] == [0]


@pytest.mark.slow
def test_a_training_that_fails_is_named_with_its_last_line_and_the_others_are_finished(tmp_path, forks):
    jobs = [job(tmp_path, 0, changes={"weights": str(tmp_path / "none.safetensors")}), job(tmp_path, 1)]
    with pytest.raises(
        TrainingError, match=r"run0\.5-s0 failed \(exit code 2, log .*\): error: weights .* do not exist"
    ):
        LAUNCHER.run("training", jobs, Recorder())
    assert jobs[1].is_finished()


@pytest.mark.slow
def test_a_training_waits_for_what_it_starts_from(tmp_path, forks):
    features = tmp_path / "features.safetensors"
    later = job(tmp_path, 0, starts_from=features, changes={"weights": str(features)})
    recorder = Recorder()
    LAUNCHER.run("training", [later, job(tmp_path, 1, features=features)], recorder)
    assert [message.split(":")[0] for message in recorder.messages] == ["run0.5-s1", "run0.5-s0"]
    assert (1, 0, 1) in recorder.counts  # there was a place, but it waited
    assert later.is_finished()


@pytest.mark.slow
def test_a_training_whose_pre_training_failed_is_named_and_never_started(tmp_path, forks):
    features = tmp_path / "features.safetensors"
    failing = job(tmp_path, 1, features=features, changes={"weights": str(tmp_path / "none.safetensors")})
    later = job(tmp_path, 0, starts_from=features, changes={"weights": str(features)})
    with pytest.raises(
        TrainingError, match=r"run0\.5-s1 failed .*; run0\.5-s0 was not started: there is no .*features"
    ):
        LAUNCHER.run("training", [failing, later], Recorder())
    assert not later.run_dir.exists()


@pytest.mark.slow
def test_stopping_leaves_checkpoints_that_the_next_start_goes_on_from(tmp_path, monkeypatch):
    long = job(tmp_path, 0, changes={"schedule.iterations": 200, "schedule.checkpoint_every": 1000})
    metrics = RunFolder(long.run_dir).metrics_path
    monkeypatch.setattr(launch, "SECONDS_BETWEEN_LOOKS", 0.05)

    def stop_when_it_runs():
        while not (metrics.is_file() and metrics.read_text()):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=stop_when_it_runs)
    thread.start()
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        LAUNCHER.run("training", [long], recorder)
    thread.join()
    assert recorder.messages[-1].endswith("the same command again goes on from there")
    stopped_at = [int(folder.name) for folder in RunFolder(long.run_dir).checkpoints_path.glob("[0-9]*")]
    assert len(stopped_at) == 1
    assert 0 < stopped_at[0] < 200
    LAUNCHER.run("training", [long], Recorder())
    assert long.is_finished()
    assert f"resumed after iteration {stopped_at[0]}" in long.beside(".log").read_text()


def test_another_training_s_folder_is_neither_gone_on_in_nor_lost(tmp_path):
    other = job(tmp_path, changes={"schedule.iterations": 200})
    checkpoint = RunFolder(other.run_dir).checkpoints_path / "100"
    checkpoint.mkdir(parents=True)
    write_json(RunFolder(other.run_dir).recipe_path, other.recipe.model_dump(mode="json"))
    with pytest.raises(UserError, match=r"run0\.5-s0 holds another training than 'aligndet_small': move it away"):
        LAUNCHER.run("training", [job(tmp_path)], Recorder())
    assert checkpoint.is_dir()


def test_what_slurm_was_given_is_left_to_slurm(tmp_path):
    submitted = job(tmp_path)
    record_path(submitted).write_text("{}")
    with pytest.raises(UserError, match=r"1 trainings were submitted to Slurm .*: go on with --launcher slurm"):
        LAUNCHER.run("training", [submitted], Recorder())
    assert not submitted.run_dir.exists()


def test_a_pre_training_is_finished_when_its_features_are_kept(tmp_path, monkeypatch):
    kept = job(tmp_path, features=tmp_path / "features.safetensors")
    monkeypatch.setattr(RunFolder, "read_recipe", lambda self: kept.recipe)
    kept.run_dir.mkdir()
    last = {"iteration": kept.recipe.schedule.iterations, "evaluation": {}}
    for path, text in (("recipe.json", "{}"), ("metrics.jsonl", json.dumps(last) + "\n")):
        (kept.run_dir / path).write_text(text)
    assert not kept.is_finished()
    (tmp_path / "features.safetensors").touch()
    assert kept.is_finished()


def test_devices_and_threads():
    assert devices_for("cpu") == ("cpu",)
    assert threads_for(1) == 0
    assert threads_for(1000) == 1
