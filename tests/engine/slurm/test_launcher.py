"""One Slurm job a training: collected, not submitted twice, and submitted again where Slurm ended it."""

import shutil
import signal
import sys
from threading import Thread

import pytest
from submitit import SlurmJob
from submitit.slurm.slurm import SlurmInfoWatcher

from aligncli.engine.run_folder import RunFolder, training_seconds
from aligncli.engine.slurm import launcher as slurm_launcher
from aligncli.engine.slurm import queue as slurm_queue
from aligncli.engine.slurm.launcher import SlurmLauncher
from aligncli.engine.slurm.settings import SlurmSettings
from aligncli.errors import TrainingError, UserError
from tests.engine.slurm.cluster import Cluster
from tests.engine.test_launch import Recorder, job

CPU = SlurmSettings(gpus_per_node=0, cpus_per_task=1, partition="batch")
FINISHES = 'mkdir -p {run}; echo \'{{"iteration": 12, "evaluation": {{"AP": 50.0}}}}\' > {run}/metrics.jsonl'


class Events(Recorder):
    """Does something at the first telling of how far it is where `condition` holds."""

    def __init__(self, action, condition=lambda: True):
        super().__init__()
        self.action, self.condition = action, condition

    def runs(self, running, *, ended, waiting):
        super().runs(running, ended=ended, waiting=waiting)
        if self.action and self.condition():
            action, self.action = self.action, None
            action()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_launcher, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=0))  # it knows the jobs of the tests before
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)
    return Cluster.on_path(tmp_path / "cluster", monkeypatch)


@pytest.fixture
def launcher(tmp_path, cluster):
    return SlurmLauncher(folder=tmp_path / "slurm", settings=CPU)


@pytest.fixture
def trains(monkeypatch):
    """Replaces the training by a shell's line, for those that do not need a real one."""

    def replace(line):
        def command(job, **_):
            return ["sh", "-c", line.format(run=job.run_dir, name=job.run_dir.name)]

        monkeypatch.setattr(slurm_launcher, "training_command", command)

    return replace


def interrupt():
    raise KeyboardInterrupt


def leave(launcher, jobs):
    """Start a launcher and stop it once all is submitted; returns what it said."""
    recorder = Events(interrupt)
    with pytest.raises(KeyboardInterrupt):
        launcher.run("training", jobs, recorder)
    return recorder.messages


@pytest.mark.slow
def test_a_training_is_a_job_of_its_own_and_is_not_run_again(launcher, cluster, tmp_path):
    training = job(tmp_path, 0, features=tmp_path / "features.safetensors")
    cluster.hold()
    recorder = Events(Thread(target=cluster.start, args=("101",)).start)
    launcher.run("training", [training], recorder)
    assert training.is_finished()
    assert (tmp_path / "features.safetensors").is_file()
    assert recorder.messages[0] == "submitted 1 Slurm job: 101"
    assert "run0.5-s0: AP " in recorder.messages[1]
    assert recorder.stages[-1] == ("training", 12, 12)
    assert recorder.counts[0] == (0, 0, 1)
    assert (1, 0, 0) in recorder.counts
    assert recorder.counts[-1] == (0, 1, 0)
    assert training_seconds(training.run_dir) > 0
    assert not list(tmp_path.glob("*.slurm.json"))
    script = (cluster.folder / "101.sh").read_text()
    assert "#SBATCH --partition=batch\n" in script
    assert "#SBATCH --job-name=run0.5-s0\n" in script

    launcher.run("training", [training], Recorder())
    assert cluster.jobs == ["101"]


@pytest.mark.slow
def test_a_training_that_slurm_stops_goes_on_from_its_checkpoint_in_another_job(launcher, cluster, tmp_path):
    long = job(tmp_path, 0, changes={"schedule.iterations": 100, "schedule.checkpoint_every": 1000})
    metrics = RunFolder(long.run_dir).metrics_path
    warn = Events(lambda: cluster.signal("101", signal.SIGUSR2), lambda: metrics.is_file() and metrics.read_text())
    launcher.run("training", [long], warn)
    assert long.is_finished()
    assert cluster.jobs == ["101", "102"]
    assert any("Slurm job 101 ended TIMEOUT after iteration" in message for message in warn.messages)
    assert "resumed after iteration" in long.beside(".log").read_text()


def test_a_training_that_fails_is_named_with_its_last_line_and_the_others_are_collected(launcher, trains, tmp_path):
    trains(f"case {{name}} in run0.5-s0) echo boom; exit 3;; esac; {FINISHES}")
    recorder = Recorder()
    with pytest.raises(TrainingError, match=r"^run0\.5-s0 failed \(exit code 3, log .*run0\.5-s0.log\): boom$"):
        launcher.run("training", [job(tmp_path, 0), job(tmp_path, 1)], recorder)
    assert any("run0.5-s1: AP 50.0" in message for message in recorder.messages)
    assert not list(tmp_path.glob("*.slurm.json"))


def test_a_stopped_launcher_leaves_its_jobs_and_the_next_start_picks_them_up(launcher, cluster, trains, tmp_path):
    trains(FINISHES)
    cluster.hold()
    jobs = [job(tmp_path, 0), job(tmp_path, 1)]
    assert leave(launcher, jobs)[-1] == (
        "2 Slurm jobs: 101 102 left to the cluster: the same command again collects them, `scancel 101 102` ends them"
    )
    assert [cluster.state(number) for number in cluster.jobs] == ["PENDING", "PENDING"]

    recorder = Events(lambda: [cluster.start(number) for number in cluster.jobs])
    launcher.run("training", jobs, recorder)
    assert recorder.messages[0] == "picked up 2 Slurm jobs: 101 102"
    assert recorder.counts[0] == (0, 0, 2)
    assert recorder.counts[-1] == (0, 2, 0)
    assert cluster.jobs == ["101", "102"]


def test_what_ends_while_no_launcher_looks_is_concluded_by_the_next(launcher, cluster, trains, tmp_path, monkeypatch):
    trains(f"sleep 0.2; {FINISHES}")
    cluster.hold()
    finishing = job(tmp_path, 0)
    leave(launcher, [finishing])
    cluster.start("101")
    monkeypatch.setattr(type(finishing), "is_finished", lambda self: True)  # the stand-in writes no recipe.json
    recorder = Recorder()
    launcher.run("training", [finishing], recorder)
    assert any("run0.5-s0: AP 50.0" in message for message in recorder.messages)
    assert training_seconds(finishing.run_dir) > 0
    assert recorder.counts == [(0, 1, 0)]
    assert cluster.jobs == ["101"]


def test_what_failed_while_no_launcher_looked_is_submitted_again(launcher, cluster, trains, tmp_path):
    trains("exit 3")
    cluster.hold()
    failing = job(tmp_path, 0)
    leave(launcher, [failing])
    cluster.start("101")
    trains(FINISHES)
    launcher.run("training", [failing], Events(lambda: cluster.start("102")))
    assert cluster.jobs == ["101", "102"]


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_that_slurm_killed_for_its_own_reasons_is_submitted_again(launcher, cluster, trains, tmp_path, state):
    trains(FINISHES)
    cluster.hold()

    def kill():
        cluster.end("101", state)
        (cluster.folder / "hold").unlink()

    recorder = Events(kill)
    launcher.run("training", [job(tmp_path, 0)], recorder)
    assert cluster.jobs == ["101", "102"]
    assert f"run0.5-s0: Slurm job 101 ended {state} after iteration 0; it is submitted again" in recorder.messages


def test_a_time_limit_before_the_first_checkpoint_is_not_run_into_for_ever(launcher, cluster, trains, tmp_path):
    trains("exec sleep 60")
    log = tmp_path / "run0.5-s0.log"
    warned = Events(lambda: cluster.signal("101", signal.SIGUSR2), log.is_file)
    with pytest.raises(TrainingError, match=r"run0\.5-s0 failed \(Slurm job 101 ended TIMEOUT, log .*\)"):
        launcher.run("training", [job(tmp_path, 0)], warned)
    assert cluster.jobs == ["101"]


def test_a_job_killed_for_its_memory_is_a_failure_with_slurms_word(launcher, cluster, trains, tmp_path):
    trains("echo loading; sleep 60")
    log = tmp_path / "run0.5-s0.log"

    def kill():
        cluster.end("101", "OUT_OF_MEMORY")
        cluster.signal("101", signal.SIGKILL)

    with pytest.raises(
        TrainingError, match=r"run0\.5-s0 failed \(Slurm job 101 ended OUT_OF_MEMORY, log .*\): loading$"
    ):
        launcher.run("training", [job(tmp_path, 0)], Events(kill, lambda: log.is_file() and log.read_text()))
    assert cluster.jobs == ["101"]


def test_a_job_that_the_user_cancels_is_not_submitted_again(launcher, cluster, trains, tmp_path):
    trains("exec sleep 60")
    log = tmp_path / "run0.5-s0.log"

    def cancel():
        cluster.end("101", "CANCELLED by 1000")
        cluster.signal("101", signal.SIGTERM)

    with pytest.raises(TrainingError, match=r"run0\.5-s0 failed \(Slurm job 101 ended CANCELLED, log"):
        launcher.run("training", [job(tmp_path, 0)], Events(cancel, log.is_file))
    assert cluster.jobs == ["101"]


def test_without_accounts_a_job_that_has_left_the_queue_is_a_failure(launcher, cluster, trains, tmp_path, monkeypatch):
    trains(FINISHES)
    cluster.hold()
    (cluster.folder / "no-accounts").touch()
    monkeypatch.setattr(slurm_queue, "SECONDS_UNKNOWN", 0.0)
    gone = Events(lambda: cluster.end("101", "FAILED"), (cluster.folder / "in-queue").exists)
    with pytest.raises(TrainingError, match=r"run0\.5-s0 failed \(Slurm job 101 ended UNKNOWN, log .*\): no output"):
        launcher.run("training", [job(tmp_path, 0)], gone)
    assert gone.counts[0] == (0, 0, 1)  # while squeue knew it, it was waited for


def test_no_more_jobs_than_asked_for_are_given_to_slurm_at_a_time(cluster, trains, tmp_path):
    trains(FINISHES)
    jobs = [job(tmp_path, seed) for seed in range(3)]
    recorder = Recorder()
    SlurmLauncher(tmp_path / "slurm", CPU, parallel=1).run("training", jobs, recorder)
    submitted = [message for message in recorder.messages if message.startswith("submitted")]
    assert submitted == [f"submitted 1 Slurm job: {number}" for number in (101, 102, 103)]
    assert all(sum(counts) == 3 for counts in recorder.counts)


def test_what_sbatch_says_against_a_job_is_one_line(cluster, tmp_path, trains):
    trains(FINISHES)
    launcher = SlurmLauncher(tmp_path / "slurm", SlurmSettings(partition="refuse"))
    with pytest.raises(UserError, match=r"^sbatch refused run0\.5-s0: .*invalid partition.*; .*submission failed$"):
        launcher.run("training", [job(tmp_path)], Recorder())
    assert not list(tmp_path.glob("*.slurm.json"))


def test_without_submitit_or_slurm_it_is_said_what_is_missing(launcher, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        with pytest.raises(UserError, match=r"^--launcher slurm needs submitit: pip install 'aligncli\[slurm\]'$"):
            launcher.run("training", [job(tmp_path)], Recorder())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs Slurm's sbatch and srun: run it on a login node"):
        launcher.run("training", [job(tmp_path)], Recorder())
