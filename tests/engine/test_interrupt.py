"""The first signal ends a training or evaluation in order, the second at once, and no process is left behind."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aligncli.cli import progress
from aligncli.cli.app import main
from aligncli.engine import interrupt
from aligncli.engine.checkpoint import checkpoint_folders, load_checkpoint
from aligncli.engine.interrupt import REQUEUE_SIGNAL, stop_on_signal, swallowed_interrupts_sent_again
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.trainer import Trainer
from tests.engine.conftest import SECONDS
from tests.engine.processes import Process

BOTH = (signal.SIGINT, signal.SIGTERM)
CHANGES = SECONDS | {
    "schedule.iterations": 100_000,
    "schedule.checkpoint_every": 100_000,
    "weights": "none",
    "input.workers": 2,
    "evaluation.batch_size": 1,
}


def arguments(run_dir: Path, changes: dict | None = None) -> list[str]:
    settings = [f"--set={key}={value}" for key, value in (CHANGES | (changes or {})).items()]
    return ["train", "aligndet_small", "--device", "cpu", "--out", str(run_dir), *settings]


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def start(run, tmp_path) -> Callable[..., Process]:
    """Trains with the command line in a process of its own; `prepare` may slow it down first."""

    def started(*, changes: dict | None = None, prepare: Callable[[], object] = int, **environment: str) -> Process:
        return Process(partial(command, arguments(run.root, changes), prepare), tmp_path / "log", environment)

    return started


def command(arguments: list[str], prepare: Callable[[], object]) -> None:
    """A command line, after `prepare`."""
    prepare()
    main(arguments)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="process groups and their signals are POSIX's")
def test_ctrl_c_ends_with_130_a_checkpoint_and_no_process_left_behind(run):
    """As a user starts it, in a process that was not forked from this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aligncli", *arguments(run.root)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
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


@pytest.mark.parametrize("number", [*BOTH, REQUEUE_SIGNAL])
def test_a_signal_to_all_processes_of_a_training_leaves_a_checkpoint_and_no_process(run, start, number):
    process = start(**({"SLURM_JOB_ID": "101"} if number == REQUEUE_SIGNAL else {}))
    process.wait_for(run.metrics_path, '"iteration": 2')
    process.signal_all(number)
    assert process.wait() == 128 + number, process.log.read_text()
    assert "a checkpoint is saved; go on with: aligncli train --resume" in process.log.read_text().splitlines()[-1]
    assert "Traceback" not in process.log.read_text()
    assert load_checkpoint(run, device="cpu").iteration >= 2
    assert not process.children_left()


def workers_start_by(method: str) -> None:
    """As on another platform; the function itself is a method, and would be pickled with an object of its own."""
    multiprocessing.set_start_method(method, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_signal_ends_workers_that_were_not_forked(run, start, method):
    process = start(prepare=partial(workers_start_by, method))
    process.wait_for(run.metrics_path, '"iteration": 2')
    process.signal_all(signal.SIGTERM)
    assert process.wait() == 143, process.log.read_text()
    assert load_checkpoint(run, device="cpu").iteration >= 2
    assert not process.children_left()


def sleep_in_steps(mark: Path, seconds: float) -> None:
    """Let every step from the second on take that long; `mark` appears when one begins."""
    step = Trainer.step

    def slow(trainer, batches):
        if trainer.iteration >= 1:
            mark.write_text("sleeps")
            time.sleep(seconds)
        return step(trainer, batches)

    Trainer.step = slow


@pytest.mark.parametrize("second", BOTH)
def test_the_second_signal_ends_a_training_now(run, start, tmp_path, second):
    mark = tmp_path / "mark"
    process = start(prepare=partial(sleep_in_steps, mark, 1000))
    process.wait_for(mark, "sleeps")
    process.signal_all(signal.SIGTERM)
    time.sleep(interrupt.SAME_SIGNAL_SECONDS + 0.2)
    process.signal_all(second)
    assert process.wait(30) == 128 + second, process.log.read_text()
    assert not checkpoint_folders(run)
    assert not process.children_left()


def test_one_signal_that_arrives_twice_is_one(run, start, tmp_path):
    mark = tmp_path / "mark"
    process = start(prepare=partial(sleep_in_steps, mark, 1.5))
    process.wait_for(mark, "sleeps")
    for _ in range(3):
        process.signal_all(signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait() == 143, process.log.read_text()
    assert load_checkpoint(run, device="cpu").iteration == 2
    assert not process.children_left()


def sleep_in_evaluations(mark: Path) -> None:
    """Let every batch of an evaluation take a second."""

    def slow(reporter, *, done, total):
        mark.write_text("evaluates")
        time.sleep(1)

    progress.ProgressReporter.evaluation = slow


@pytest.mark.parametrize("iterations", [3, 100_000], ids=["the last", "between iterations"])
@pytest.mark.parametrize("number", BOTH)
def test_a_signal_in_an_evaluation_ends_it_between_batches_with_all_saved(run, start, tmp_path, number, iterations):
    mark = tmp_path / "mark"
    changes = {"schedule.iterations": iterations, "schedule.eval_every": 3, "data.num_val": 1000}
    process = start(changes=changes, prepare=partial(sleep_in_evaluations, mark))
    process.wait_for(mark, "evaluates")
    process.signal_all(number)
    assert process.wait() == 128 + number, process.log.read_text()
    assert "after iteration 3, a checkpoint is saved" in process.log.read_text().splitlines()[-1]
    assert load_checkpoint(run, device="cpu").iteration == 3
    assert len(run.read_metrics()) == 3  # the evaluation is left to the resumed run
    assert not process.children_left()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one iteration with a hundred images to evaluate on, to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    words = [*arguments(folder / "run", {"schedule.iterations": 1, "data.num_val": 100}), "--no-report"]
    process = Process(partial(command, words, int), folder / "log")
    assert process.wait() == 0, process.log.read_text()
    return folder / "run"


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_ends_the_eval_command_and_all_its_processes(run, trained, tmp_path, number):
    shutil.copytree(trained, run.root)
    before = run.evaluation_path.read_bytes()
    mark = tmp_path / "mark"
    evaluate = partial(command, ["eval", str(run.root), "--device", "cpu"], partial(sleep_in_evaluations, mark))
    process = Process(evaluate, tmp_path / "log")
    process.wait_for(mark, "evaluates")
    process.signal_all(number)
    assert process.wait() == 128 + number, process.log.read_text()
    assert "Traceback" not in process.log.read_text()
    assert not process.children_left()
    assert run.evaluation_path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_a_training_that_was_killed_end_by_themselves(run, start, method):
    process = start(prepare=partial(workers_start_by, method))
    process.wait_for(run.metrics_path, '"iteration": 2')
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not process.children_left(30)  # torch has them look for their parent every five seconds
    assert not list(process.log.parent.glob("aligncli-workers-*"))


class Destroyed:
    """Presses Ctrl-C while it is destroyed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@swallowed_interrupts_sent_again()
def wait_after_a_lost_ctrl_c() -> None:
    Destroyed()
    time.sleep(20)


def test_ctrl_c_in_a_destructor_is_not_lost(capfd):
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        wait_after_a_lost_ctrl_c()
    assert time.monotonic() - started < 10
    assert capfd.readouterr() == ("", "")


def test_what_else_a_destructor_raises_is_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with swallowed_interrupts_sent_again():
        monkeypatch.setattr(Destroyed, "__del__", lambda self: 1 / 0)
        Destroyed()
    assert [one.exc_type for one in told] == [ZeroDivisionError]
    assert sys.unraisablehook == told.append


def test_a_request_is_noted_once_and_the_second_does_what_it_did_before(monkeypatch):
    with stop_on_signal() as request:
        assert request.signal_number is None
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same one
        assert request.signal_number == signal.SIGINT
        monkeypatch.setattr(interrupt, "SAME_SIGNAL_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_signal_is_never_the_same_one():
    with stop_on_signal() as request:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert request.signal_number == signal.SIGTERM
