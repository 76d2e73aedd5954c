"""What a training leaves for those who watch it, and how they tell whether it goes on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aligncli.catalog import load_recipe
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.progress_file import ProgressFile, is_alive, kept_for_watchers, read_progress
from aligncli.engine.reporter import SilentReporter
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.watched import follow, look
from aligncli.errors import CheckpointError, TrainingError

RECIPE = load_recipe("quickstart").changed({"schedule.iterations": 100})


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Listener(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def step(self, record) -> None:
        self.heard.append(record["iteration"])

    def evaluated(self, *, iteration: int, metrics) -> None:
        self.heard.append((iteration, metrics["AP"]))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.recipe_path.write_text(json.dumps(RECIPE.model_dump(mode="json")))
    folder.metrics_path.write_text("")
    return folder


def begin(reporter) -> None:
    reporter.start(iterations=100, first=0, recipe=RECIPE, num_parameters=1, num_images=1)


def record(iteration: int) -> dict[str, float]:
    return {"iteration": iteration, "lr": 0.1, "images_per_second": 8.0, "eta_seconds": 60.0, "memory": 1e9}


def test_the_file_is_renewed_once_a_second_and_all_is_passed_on(run: RunFolder) -> None:
    clock, listener = Clock(), Listener()
    reporter = ProgressFile(run, listener, clock=clock)
    begin(reporter)
    seen = []
    for iteration in range(1, 9):
        clock.now += 0.4
        reporter.step(record(iteration))
        progress = read_progress(run)
        assert progress is not None
        seen.append(progress.iteration)
    assert seen == [0, 0, 3, 3, 3, 6, 6, 6]
    reporter.evaluated(iteration=8, metrics={"AP": 3.0})
    assert listener.heard == [*range(1, 9), (8, 3.0)]


def test_a_process_says_what_it_does_and_how_it_ended(run: RunFolder) -> None:
    with kept_for_watchers(run, SilentReporter()) as reporter:
        begin(reporter)
        assert look(run.root).state == "training"
        reporter.step(record(50))
    assert read_progress(run) is not None
    assert look(run.root).state == "finished"
    with pytest.raises(TrainingError), kept_for_watchers(run, SilentReporter()):
        raise TrainingError("the loss is no longer finite\nsecond line")
    seen = look(run.root)
    assert seen.progress is not None
    assert (seen.state, seen.progress.reason) == ("failed", "the loss is no longer finite")
    with pytest.raises(Interrupted), kept_for_watchers(run, SilentReporter()):
        raise Interrupted(run.root, 7, 2)
    assert look(run.root).state == "stopped"


def test_seconds_add_up_over_the_starts_of_a_run(run: RunFolder) -> None:
    for seconds in (10.0, 20.0):
        clock = Clock()
        reporter = ProgressFile(run, SilentReporter(), clock=clock)
        clock.now = seconds
        reporter.end("stopped")
    progress = read_progress(run)
    assert progress is not None
    assert progress.seconds == 30.0


def test_a_killed_process_is_told_from_one_that_works(run: RunFolder) -> None:
    reporter = ProgressFile(run, SilentReporter())
    begin(reporter)
    mine = read_progress(run)
    assert mine is not None
    assert is_alive(run, mine)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    if os.name == "posix":
        assert not is_alive(run, replace(mine, process=gone.pid))
    elsewhere = replace(mine, host=platform.node() + "-other", process=gone.pid)
    assert is_alive(run, elsewhere)  # nobody can be asked there
    os.utime(run.progress_path, (0, 0))
    assert not is_alive(run, elsewhere)
    assert not is_alive(run, mine)  # silent for too long: it hangs, or its number is another's now


def test_an_old_run_without_the_file_is_finished_or_not(run: RunFolder) -> None:
    assert look(run.root).state == "unfinished"
    run.append_metrics({"iteration": 100, "evaluation": {"AP": 3.0}})
    seen = look(run.root)
    assert (seen.state, seen.average_precision, seen.iteration) == ("finished", (100, 3.0), 100)


def test_a_half_written_line_is_not_read_and_a_broken_file_is_named(run: RunFolder) -> None:
    run.append_metrics({"iteration": 20, "lr": 0.1, "loss": 1.0})
    with run.metrics_path.open("a") as file:
        file.write('{"iteration": 40, "lo')
    assert look(run.root).iteration == 20
    whole = ProgressFile(run, SilentReporter())
    whole.end("stopped")
    of_another_type = run.progress_path.read_text().replace('"done": 0', '"done": "many"')
    for garbled in ("{", "[1, 2]", '{"stage": "training"}', of_another_type):
        run.progress_path.write_text(garbled)
        with pytest.raises(CheckpointError, match=r"progress\.json"):
            look(run.root)


def test_following_ends_with_the_training(run: RunFolder) -> None:
    reporter = ProgressFile(run, SilentReporter())
    begin(reporter)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            reporter.end("stopped")

    states = [seen.state for seen in follow(run.root, every=2.0, sleep=sleep)]
    assert states == ["training", "training", "training", "stopped"]
    assert slept == [2.0, 2.0, 2.0]
