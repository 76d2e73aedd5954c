"""12 steps straight are 7 steps, SIGKILL, and 5 more: weights, training state and metrics, byte for byte."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from aligncli.catalog import on_folder
from aligncli.config import Recipe
from aligncli.engine.reporter import SilentReporter
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.train import train
from aligncli.errors import CheckpointError
from tests.engine.processes import Process, names
from tests.helpers import tiny_recipe


class KillAtStep(SilentReporter):
    """Kills the process while a step is reported: after its line of metrics, before its checkpoint."""

    def __init__(self, iteration):
        self.iteration = iteration

    def step(self, record):
        if record["iteration"] == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


class KillInEvaluation(SilentReporter):
    """Kills the process while the first evaluation goes on."""

    def evaluation(self, *, done, total):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums depend on the number of threads, and a process to be killed has one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photos(root: Path, *, count: int = 6) -> Path:
    """A COCO folder of noise, in both orientations, with one or two boxes an image and one without."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        images, annotations = [], []
        for row in range(count):
            width, height = [(80, 56), (56, 80), (72, 60)][row % 3]
            name = f"{split}{row}.png"
            (root / "images").mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / name)
            images.append({"id": 10 * row, "file_name": name, "width": width, "height": height})
            for _ in range(row % 3):
                box = [float(x) for x in draw.uniform(4, 24, 4)]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": 10 * row, "category_id": row % 2 + 1, "bbox": box}
                )
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        (root / "annotations").mkdir(exist_ok=True)
        document = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


SMALL = {
    "model.adm.num_convs": 1,
    "model.adm.channels": 16,
    "model.dpm.tower.num_convs": 1,
    "input.min_short_side": 48,
    "input.max_short_side": 64,
    "input.long_side": 96,
    "schedule.iterations": 12,
    "schedule.batch_size": 4,
    "schedule.log_every": 1,
    "schedule.checkpoint_every": 7,
}


def photo_recipe(root: Path, changes: dict) -> Recipe:
    return on_folder(tiny_recipe("photo", SMALL | changes), root)


STATE = "checkpoints/0000012/state.pt"


def require_equal_runs(ours: Path, theirs: Path) -> None:
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    assert (ours / "results.json").read_bytes() == (theirs / "results.json").read_bytes()
    weights = [name for name in names(theirs) if name.endswith(".safetensors")]
    assert weights == [name for name in names(ours) if name.endswith(".safetensors")]
    for name in [*weights, "checkpoints/0000012/model.safetensors"]:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    ours_state, theirs_state = (torch.load(run / STATE, weights_only=True)["optimizer"] for run in (ours, theirs))
    assert ours_state["param_groups"] == theirs_state["param_groups"]
    assert ours_state["state"].keys() == theirs_state["state"].keys()
    for key, slot in theirs_state["state"].items():
        for name, value in slot.items():
            assert torch.equal(torch.as_tensor(ours_state["state"][key][name]), torch.as_tensor(value)), (key, name)


CASES = {
    "plain": ({}, KillAtStep(8)),
    "in the middle of the interval between checkpoints": ({"schedule.checkpoint_every": 5}, KillAtStep(7)),
    "two workers": ({"input.workers": 2}, KillAtStep(8)),
    "accumulation": ({"schedule.accumulate": 2, "optimizer": "sgd"}, KillAtStep(8)),
    "accumulation and two workers": ({"schedule.accumulate": 2, "input.workers": 2}, KillAtStep(8)),
    "evaluations between": ({"schedule.eval_every": 3, "schedule.checkpoint_every": 100}, KillAtStep(8)),
    "in the evaluation after a checkpoint": ({"schedule.eval_every": 7}, KillInEvaluation()),
    "bf16": ({"schedule.amp": "bf16"}, KillAtStep(8)),
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nobody stopped, of a recipe with these changes; the same run for the same changes."""
    root = tmp_path_factory.mktemp("straight")
    photos(root / "data")

    def run(changes: dict) -> Path:
        relevant = {key: value for key, value in changes.items() if key not in IRRELEVANT}
        folder = root / f"run {relevant}"
        if not folder.exists():
            train(photo_recipe(root / "data", relevant), folder)
        return folder

    return run


IRRELEVANT = ("input.workers", "schedule.checkpoint_every")  # for every number, so they need no run of their own


def killed(recipe: Recipe, run_dir: Path, killer: SilentReporter) -> None:
    """A training that dies of SIGKILL."""
    process = Process(partial(train, recipe, run_dir, reporter=killer), run_dir.with_suffix(".log"))
    assert process.wait() == -signal.SIGKILL, process.log.read_text()


@pytest.mark.parametrize("case", CASES)
def test_12_steps_straight_are_7_and_a_kill_and_5_bit_for_bit(tmp_path, straight, case):
    changes, killer = CASES[case]
    expected = straight(changes)
    recipe = photo_recipe(expected.parent / "data", changes)
    killed(recipe, tmp_path / "run", killer)
    train(recipe, tmp_path / "run", resume=True)
    require_equal_runs(tmp_path / "run", expected)
    if recipe.schedule.eval_every:
        lines = RunFolder(tmp_path / "run").read_metrics()
        after = {*range(recipe.schedule.eval_every, 13, recipe.schedule.eval_every), 12}
        assert [line["iteration"] for line in lines if "evaluation" in line] == sorted(after)


def test_a_run_killed_in_its_very_first_steps_says_what_to_do(tmp_path):
    recipe = photo_recipe(photos(tmp_path / "data"), {})
    killed(recipe, tmp_path / "run", KillAtStep(3))
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume from: delete it and start"):
        train(recipe, tmp_path / "run", resume=True)


class Listener(SilentReporter):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def test_a_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(tmp_path, straight):
    recipe = photo_recipe(straight({}).parent / "data", {"schedule.checkpoint_every": 4})
    killed(recipe, tmp_path / "run", KillAtStep(10))
    state = tmp_path / "run" / "checkpoints" / "0000008" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    listener = Listener()
    train(recipe, tmp_path / "run", resume=True, reporter=listener)
    assert sum("0000008 is damaged and not used: state.pt" in line for line in listener.lines) == 1
    require_equal_runs(tmp_path / "run", straight({}))


def test_a_half_written_line_of_metrics_is_written_again(tmp_path, straight):
    recipe = photo_recipe(straight({}).parent / "data", {})
    killed(recipe, tmp_path / "run", KillAtStep(8))
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-30])
    train(recipe, tmp_path / "run", resume=True)
    require_equal_runs(tmp_path / "run", straight({}))


def test_the_best_evaluations_weights_are_kept_and_named(tmp_path, monkeypatch):
    precision = iter([3.0, float("nan"), 7.0, 7.0])
    monkeypatch.setattr("aligncli.engine.train.evaluate_detector", stand_in(precision))
    train(photo_recipe(photos(tmp_path / "data"), {"schedule.eval_every": 3}), tmp_path / "run")
    with safe_open(tmp_path / "run" / "best.safetensors", "pt") as best:
        assert best.metadata() == {"iteration": "9"}
        names = best.keys()
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as newest:
        assert sorted(newest.keys()) == sorted(names)


def test_one_evaluation_at_the_end_needs_no_best(tmp_path):
    train(photo_recipe(photos(tmp_path / "data"), {"schedule.iterations": 2}), tmp_path / "run")
    assert not (tmp_path / "run" / "best.safetensors").exists()


def stand_in(precision):
    """An evaluation that reaches the AP it is given."""
    from aligncli.engine.evaluate import Evaluation

    def evaluate(*arguments, **options):
        return Evaluation({"AP": next(precision)}, {}, 1, 0.1, "none", [])

    return evaluate
