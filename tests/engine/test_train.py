"""A training run is a function of its recipe: repeatable, resumable at any step, and it stops politely."""

import itertools
import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligncli.data.loader import train_loader
from aligncli.engine import train as train_module
from aligncli.engine.inference import to_unit_range
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.reporter import SilentReporter
from aligncli.engine.schedule import describe_lr
from aligncli.engine.train import Trainer, train
from aligncli.errors import CheckpointError, DataError, DeviceError, RecipeError, TrainingError
from tests.helpers import random_batch, tiny_detector


class SignalAt(SilentReporter):
    """Sends this process a signal while the given iteration is reported."""

    def __init__(self, iteration: int, number: signal.Signals) -> None:
        self.iteration = iteration
        self.number = number

    def step(self, record):
        if record["iteration"] == self.iteration:
            signal.raise_signal(self.number)


class Messages(SilentReporter):
    """Keeps what it is told in words."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text):
        self.messages.append(text)


def _broken_from(iteration: int):
    """Trainer.step whose loss is not finite from an iteration on."""
    step = Trainer.step

    def broken(self, batches):
        losses = step(self, batches)
        return losses | {"adm_box": torch.tensor(float("nan"))} if self.iteration >= iteration else losses

    return broken


def metrics(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from tests.engine.conftest import SECONDS
    from tests.helpers import tiny_recipe

    recipe = tiny_recipe("aligndet_small", SECONDS)
    run_dir = tmp_path_factory.mktemp("runs") / "straight"
    return recipe, train(recipe, run_dir)


def test_a_run_leaves_weights_metrics_detections_and_everything_to_rebuild_it(finished):
    _, result = finished
    names = {path.name for path in result.run_dir.iterdir()}
    assert names == {
        "recipe.json",
        "environment.json",
        "categories.json",
        "metrics.jsonl",
        "model.safetensors",
        "checkpoints",
        "results.json",
        "evaluation.json",
        "progress.json",
        ".lock",
    }
    lines = metrics(result.run_dir)
    assert [line["iteration"] for line in lines] == [*range(1, 13), 12]
    assert {"loss", "dpm_class", "dpm_box", "adm_class", "adm_box", "grad_norm", "lr"} <= set(lines[0])
    assert lines[-1]["evaluation"].keys() == result.metrics.keys()
    assert sorted(path.name for path in (result.run_dir / "checkpoints").iterdir()) == ["0000010", "0000012"]


def test_the_same_seed_gives_the_same_metrics_file_and_another_seed_another(finished, tmp_path):
    recipe, result = finished
    train(recipe, tmp_path / "again")
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (result.run_dir / "metrics.jsonl").read_bytes()
    train(recipe.changed({"seed": 1, "schedule.iterations": 1}), tmp_path / "other")
    assert metrics(tmp_path / "other")[0]["loss"] != metrics(result.run_dir)[0]["loss"]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_and_resumed_equals_straight_through(recipe, tmp_path, number, accumulate):
    recipe = recipe.changed({"schedule.accumulate": accumulate})
    train(recipe, tmp_path / "straight")
    with pytest.raises(Interrupted) as stop:
        train(recipe, tmp_path / "resumed", reporter=SignalAt(7, number))
    assert stop.value.exit_code == 128 + number
    assert stop.value.iteration == 8  # the request is seen by the step after the one that was reported
    train(recipe, tmp_path / "resumed", resume=True)
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("resumed", "straight"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class StopInEvaluation(SilentReporter):
    def evaluation(self, *, done, total):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_the_last_evaluation_ends_at_once_with_everything_saved(recipe, tmp_path):
    with pytest.raises(Interrupted) as stop:
        train(recipe, tmp_path, reporter=StopInEvaluation())
    assert (stop.value.exit_code, stop.value.iteration) == (130, 12)
    assert len(metrics(tmp_path)) == 12
    assert train(recipe, tmp_path, resume=True).metrics
    assert "evaluation" in metrics(tmp_path)[-1]


def test_evaluations_between_iterations_are_written_and_change_nothing(recipe, tmp_path):
    train(recipe, tmp_path / "end")
    train(recipe.changed({"schedule.eval_every": 6}), tmp_path / "often")
    often = metrics(tmp_path / "often")
    assert [line["iteration"] for line in often if "evaluation" in line] == [6, 12]
    assert [line for line in often if line not in metrics(tmp_path / "end")] == [often[6]]


def test_signal_handlers_are_given_back(recipe, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train(recipe.changed({"schedule.iterations": 1}), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_a_finished_run_evaluates_it_again_and_changes_no_weight_and_no_metric(finished, tmp_path):
    recipe, _ = finished
    train(recipe, tmp_path)
    before = load_file(tmp_path / "model.safetensors")
    metrics = (tmp_path / "metrics.jsonl").read_text()
    result = train(recipe, tmp_path, resume=True)
    after = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert result.iterations == 12
    assert (tmp_path / "metrics.jsonl").read_text() == metrics


def test_resuming_with_another_recipe_is_refused(finished):
    recipe, result = finished
    with pytest.raises(CheckpointError, match="another recipe"):
        train(recipe.changed({"optimizer.lr": 1.0}), result.run_dir, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint_before(recipe, tmp_path, monkeypatch):
    recipe = recipe.changed({"schedule.log_every": 3, "schedule.checkpoint_every": 4})
    monkeypatch.setattr(Trainer, "step", _broken_from(7))
    with pytest.raises(TrainingError, match="adm_box loss is nan at iteration 7"):  # seen at 8, which would be saved
        train(recipe, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0000004"]


@pytest.fixture
def damaged_image(monkeypatch):
    """Until it is undone, every training's ninth batch cannot be read."""

    def load(*given, **settings):
        yield from itertools.islice(train_loader(*given, **settings), 8)
        raise DataError("image 'cat.jpg' cannot be decoded")

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train_loader", load)
        yield patch


def test_an_image_that_cannot_be_read_loses_no_step(recipe, finished, tmp_path, damaged_image):
    reporter = Messages()
    with pytest.raises(DataError, match=r"cat\.jpg"):
        train(recipe, tmp_path, reporter=reporter)
    assert reporter.messages[-1] == "after iteration 8, a checkpoint is saved: --resume goes on from it"
    damaged_image.undo()
    train(recipe, tmp_path, resume=True)
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (finished[1].run_dir / name).read_bytes()


def test_what_an_unreadable_image_ends_is_not_saved_once_the_loss_has_broken(
    recipe, tmp_path, monkeypatch, damaged_image
):
    monkeypatch.setattr(Trainer, "step", _broken_from(7))
    with pytest.raises(DataError, match=r"cat\.jpg"):
        train(recipe.changed({"schedule.log_every": 10}), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0000005"]


def test_out_of_memory_is_one_line_that_says_what_to_change(recipe, tmp_path, monkeypatch):
    def exhausted(self, batches):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore lines")

    monkeypatch.setattr(Trainer, "step", exhausted)
    with pytest.raises(TrainingError, match=r"schedule\.accumulate.*Tried to allocate 9 GiB") as raised:
        train(recipe, tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("alignment", ["guided", "roi_conv"])
def test_a_batch_norm_on_one_cell_of_one_image_is_one_line_that_says_what_to_change(recipe, tmp_path, alignment):
    """Of guided alignment, on the coarsest map, and of the backbone, at stride 32."""
    small = {"data.image_size": 32, "data.min_size": 8.0, "data.max_size": 20.0, "input.min_short_side": 32}
    small |= {"input.max_short_side": 32, "input.long_side": 32, "schedule.batch_size": 1}
    frozen = {"model.backbone.frozen_norm": alignment == "guided", "model.adm.alignment": alignment}
    message = r"single cell of a single image .*input\.min_short_side.*schedule\.batch_size.*backbone\.frozen_norm=true"
    with pytest.raises(TrainingError, match=message) as raised:
        train(recipe.changed(small | frozen), tmp_path)
    assert "\n" not in str(raised.value)


def test_accumulated_gradients_are_the_mean_of_the_parts(recipe):
    images, targets = random_batch(4, size=64)
    images = [(image * 255).to(torch.uint8) for image in images]
    changes = {"model.backbone.frozen_norm": True, "optimizer": "sgd", "schedule.clip_norm": None}
    recipe = recipe.changed(changes | {"schedule.accumulate": 2})
    trainer = Trainer(recipe, tiny_detector(changes=changes), device="cpu")
    trainer.step(iter([(images[:2], targets[:2]), (images[2:], targets[2:])]))
    found = [x.grad.clone() for x in trainer.model.parameters()]
    model = tiny_detector(changes=changes)
    for part in (slice(0, 2), slice(2, 4)):
        losses = model([to_unit_range(image, "cpu") for image in images[part]], targets[part])
        (sum(losses.values()) / 2).backward()
    for ours, parameter in zip(found, model.parameters(), strict=True):
        assert torch.allclose(ours, parameter.grad, atol=1e-6)


def test_bf16_trains_and_evaluates(recipe, tmp_path):
    result = train(recipe.changed({"schedule.amp": "bf16", "schedule.iterations": 2}), tmp_path)
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in metrics(tmp_path)[:-1])
    weights = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for name, tensor in weights.items() if name.endswith("weight")} == {torch.float32}
    assert result.metrics


@pytest.mark.parametrize(
    ("changes", "device", "error", "message"),
    [
        ({"schedule.accumulate": 3}, "cpu", RecipeError, "divisor"),
        ({"schedule.amp": "fp16"}, "cpu", DeviceError, "bf16"),
        ({}, "warp9", DeviceError, "warp9"),
        ({"weights": "imagenet"}, "cpu", CheckpointError, "tiny"),
        ({"weights": "/nowhere/x.safetensors"}, "cpu", CheckpointError, "x.safetensors"),
    ],
)
def test_bad_requests_end_before_a_run_folder_exists(recipe, tmp_path, changes, device, error, message):
    with pytest.raises(error, match=message) as raised:
        train(recipe.changed(changes), tmp_path / "run", device=device)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_line_says_how_it_was_scaled(recipe):
    assert "as in the recipe" in describe_lr(recipe.optimizer, 8)
    assert "0.001 = 0.002 x 4/8" in describe_lr(recipe.optimizer, 4)


def test_a_folder_that_holds_a_training_is_not_begun_anew(finished):
    recipe, result = finished
    before = {path: path.read_bytes() for path in result.run_dir.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="straight holds a training: resume it, or choose another folder"):
        train(recipe, result.run_dir)
    assert {path: path.read_bytes() for path in result.run_dir.rglob("*") if path.is_file()} == before


def test_evaluations_do_not_count_as_steps(recipe, tmp_path, monkeypatch):
    evaluate, rates = train_module.evaluate_detector, []

    def slowly(*given, **options):
        time.sleep(1.0)
        return evaluate(*given, **options)

    class Rates(SilentReporter):
        def step(self, record):
            rates.append(record["eta_seconds"] / max(4 - record["iteration"], 1))

    monkeypatch.setattr(train_module, "evaluate_detector", slowly)
    train(recipe.changed({"schedule.iterations": 4, "schedule.eval_every": 1}), tmp_path / "run", reporter=Rates())
    assert 0 < max(rates[1:3]) < 1.0
