"""`aligncli train`: which recipe runs, on what, where to, and every way of saying so wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligncli.catalog import load_recipe
from aligncli.config import CocoConfig, Recipe
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.metrics import METRIC_NAMES
from tests.cli.command_line import TINY, TINY_SHAPES, Run, make_data_folder


class FakeTraining:
    """Stands in for engine.train.train: remembers the call and reports two steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipe = load_recipe("quickstart")
        self.run_dir = Path()
        self.options: dict[str, Any] = {}
        self.error: BaseException | None = None
        monkeypatch.setattr("aligncli.engine.train.train", self)

    def __call__(self, recipe: Recipe, run_dir: Path, *, reporter: Any, **options: Any) -> Any:
        from aligncli.engine.train import TrainResult

        self.recipe, self.run_dir, self.options = recipe, run_dir, options
        reporter.message("lr: as in the recipe")
        reporter.start(iterations=2, first=0, recipe=recipe, num_parameters=10, num_images=20)
        for iteration in (1, 2):
            reporter.step(
                {"iteration": iteration, "lr": 0.1, "images_per_second": 5.0, "eta_seconds": 1.0, "loss": 2.0}
            )
        if self.error is not None:
            raise self.error
        reporter.finish()
        return TrainResult(run_dir, dict.fromkeys(METRIC_NAMES, 12.5) | {"APs": float("nan")}, 61.0, 2)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTraining:
    """The fake, with the working directory in a temporary place."""
    monkeypatch.chdir(tmp_path)
    return FakeTraining(monkeypatch)


def test_train_alone_runs_the_quickstart_recipe(run: Run, training: FakeTraining) -> None:
    ended = run("train")
    assert ended.code == 0
    assert training.recipe == load_recipe("quickstart")
    assert training.run_dir.parent == Path("runs")
    assert training.run_dir.name.startswith("quickstart-20")
    assert training.options["resume"] is False
    assert training.options["download"] is False


def test_the_result_is_a_table_the_run_folder_and_what_to_do_next(run: Run, training: FakeTraining) -> None:
    ended = run("train", "--out", "my run")
    for text in ("AP", "AP90", "AR100", "12.5", "1:01", "aligncli eval 'my run'", "aligncli predict 'my run' IMAGE"):
        assert text in ended.stdout
    assert "training 2/2" in ended.stderr
    assert "lr: as in the recipe" in ended.stderr
    assert training.run_dir == Path("my run")


def test_json_is_alone_on_stdout_and_progress_on_stderr(run: Run, training: FakeTraining) -> None:
    ended = run("train", "--json", "--out", "r")
    assert ended.json == {
        "run": "r",
        "recipe": "quickstart",
        "iterations": 2,
        "seconds": 61.0,
        "report": None,  # nothing was trained that could be reported
        **dict.fromkeys(METRIC_NAMES, 12.5),
        "APs": None,
    }
    assert "training 1/2" in ended.stderr
    assert training.run_dir == Path("r")


def test_options_become_keys_of_the_recipe(run: Run, training: FakeTraining) -> None:
    ended = run(
        *("train", "retinanet_small", "--seed", 7, "--batch-size", 4, "--amp", "bf16"),
        *("--set", "schedule.iterations=9", "--set", "optimizer.lr=1e-4", "--device", "cpu", "--download"),
    )
    assert ended.code == 0
    assert training.recipe == load_recipe("retinanet_small").changed(
        {
            "seed": 7,
            "schedule.batch_size": 4,
            "schedule.amp": "bf16",
            "schedule.iterations": 9,
            "optimizer.lr": 1e-4,
        }
    )
    assert training.options["device"] == "cpu"
    assert training.options["download"] is True


def test_a_data_folder_alone_trains_the_photo_recipe_on_it(run: Run, training: FakeTraining, data_folder: Path) -> None:
    assert run("train", "--data", data_folder).code == 0
    assert training.recipe.name == "photo"
    assert training.recipe.data == CocoConfig(root=str(data_folder.resolve()))


def test_a_data_folder_goes_with_any_recipe(run: Run, training: FakeTraining, data_folder: Path) -> None:
    assert run("train", "aligndet_r50", "--data", data_folder, "--set", "data.unreadable=skip").code == 0
    assert training.recipe.name == "aligndet_r50"
    assert training.recipe.data == CocoConfig(root=str(data_folder.resolve()), unreadable="skip")


def test_ctrl_c_says_how_to_go_on(run: Run, training: FakeTraining) -> None:
    training.error = Interrupted(Path("my run"), 120, 2)
    ended = run("train", "--json")
    assert (ended.code, ended.stdout) == (130, "")
    assert ended.stderr.splitlines()[-1] == (
        "stopped: after iteration 120, a checkpoint is saved; go on with: aligncli train --resume --out 'my run'"
    )


def _saved_run(folder: Path, recipe: Recipe) -> Path:
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    return folder


def test_resume_goes_on_with_the_runs_own_recipe(run: Run, training: FakeTraining, tmp_path: Path) -> None:
    recipe = load_recipe("quickstart").changed({"seed": 9, "schedule.iterations": 33})
    folder = _saved_run(tmp_path / "run", recipe)
    assert run("train", "--resume", "--out", folder).code == 0
    assert training.recipe == recipe
    assert training.options["resume"] is True


def test_resume_accepts_the_command_line_that_started_the_run(
    run: Run, training: FakeTraining, tmp_path: Path, data_folder: Path
) -> None:
    command = ["train", "quickstart", "--data", data_folder, "--seed", 3, "--set", "schedule.iterations=8"]
    run(*command, "--out", tmp_path / "run")
    started = training.recipe
    _saved_run(tmp_path / "run", started)
    assert run(*command, "--out", tmp_path / "run", "--resume").code == 0
    assert training.recipe == started


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        (["--seed", "4"], "seed is 0, not 4"),
        (["--set", "schedule.iterations=8"], "schedule.iterations is 400, not 8"),
        (["--amp", "bf16"], "schedule.amp is none, not bf16"),
        (["retinanet_small"], "name is quickstart, not retinanet_small"),
        (["--set", "optimizer=sgd"], "optimizer.kind is adamw, not sgd"),
    ],
)
def test_resume_refuses_another_recipe(
    run: Run, training: FakeTraining, tmp_path: Path, arguments: list[str], difference: str
) -> None:
    recipe = training.recipe.changed({"schedule.iterations": 400})
    folder = _saved_run(tmp_path / "run", recipe)
    line = run("train", "--resume", "--out", folder, *arguments).error_line()
    assert difference in line
    assert str(folder) in line


def test_resume_needs_a_run(run: Run, tmp_path: Path) -> None:
    assert "add --out DIR" in run("train", "--resume").error_line()
    assert "holds no run" in run("train", "--resume", "--out", tmp_path / "none").error_line()


def test_a_run_is_never_overwritten(run: Run, training: FakeTraining, tmp_path: Path) -> None:
    folder = _saved_run(tmp_path / "run", training.recipe)
    line = run("train", "--out", folder).error_line()
    assert "already holds a run" in line
    assert "--resume" in line
    (tmp_path / "file").write_text("")
    assert "is a file" in run("train", "--out", tmp_path / "file").error_line()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quikstart"], "unknown recipe 'quikstart': did you mean 'quickstart'?"),
        (["runs/mine"], "unknown recipe 'runs/mine': `aligncli recipes list` names the packaged ones, and a recipe"),
        (["missing.json"], "recipe file missing.json does not exist"),
        (["--seed", str(10**30)], "recipe key 'seed': Input should be less than"),
        (["--set", "schedule.iters=5"], "unknown recipe key 'schedule.iters': did you mean 'schedule.iterations'?"),
        (["--set", "schedule.iterations"], "expected key=value"),
        (["--set", "schedule.iterations=few"], "recipe key 'schedule.iterations': Input should be a valid integer"),
        (["photo"], "add --data FOLDER"),
        (["--set", "weights=missing.safetensors"], "weights missing.safetensors do not exist"),
        (["--device", "warp"], "device 'warp' is unknown: expected auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    run: Run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in run("train", "--device", "cpu", *arguments).error_line()


def _edit(path: Path, key: str, value: object) -> None:
    document = json.loads(path.read_text())
    document["images"][0][key] = value
    path.write_text(json.dumps(document))


def _train_on(run: Run, folder: Path, tmp_path: Path) -> str:
    """The error line of a real training on the folder."""
    options = ["--out", tmp_path / "run", "--device", "cpu", *TINY, "--set", "weights=none"]
    return run("train", "--data", folder, *options).error_line()


def test_a_missing_data_folder_is_named(run: Run, tmp_path: Path) -> None:
    assert f"data folder {tmp_path / 'nowhere'} does not exist" in _train_on(run, tmp_path / "nowhere", tmp_path)


def test_a_missing_annotation_file_is_named(run: Run, data_folder: Path, tmp_path: Path) -> None:
    (data_folder / "annotations" / "instances_train.json").unlink()
    assert "annotations/instances_train.json" in _train_on(run, data_folder, tmp_path)


def test_zero_matching_images_are_reported(run: Run, tmp_path: Path) -> None:
    folder = make_data_folder(tmp_path / "data", file_name="other-{split}{row}.png")
    assert "none of the 4 images" in _train_on(run, folder, tmp_path)


def test_an_image_path_outside_the_root_is_refused(run: Run, data_folder: Path, tmp_path: Path) -> None:
    _edit(data_folder / "annotations" / "instances_train.json", "file_name", "../../secret.png")
    line = _train_on(run, data_folder, tmp_path)
    assert "'../../secret.png'" in line
    assert "inside the image folder" in line


def test_no_error_leaves_a_run_behind(run: Run, tmp_path: Path) -> None:
    _train_on(run, tmp_path / "nowhere", tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_tiny_training_on_a_users_folder_takes_its_classes(run: Run, data_folder: Path, tmp_path: Path) -> None:
    small = {"weights": "none", "input.min_short_side": 64, "input.max_short_side": 64, "input.workers": 0}
    settings = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    ended = run("train", "--data", data_folder, "--out", out, "--json", "--device", "cpu", *TINY, *settings)
    assert ended.code == 0, ended.stderr
    assert set(METRIC_NAMES) <= set(ended.json)
    assert json.loads((out / "categories.json").read_text())["names"] == ["cat", "dog"]


def test_resuming_a_finished_run_evaluates_it_again(run: Run, trained_run: Path) -> None:
    ended = run("train", "quickstart", "--resume", "--out", trained_run, "--device", "cpu", "--json", *TINY_SHAPES)
    assert ended.code == 0, ended.stderr
    assert ended.json["iterations"] == 2


def test_recipe_json_takes_data_whatever_its_name_and_runs_nothing(run: Run, tmp_path: Path) -> None:
    code = tmp_path / "recipe.py"
    code.write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'trace')!r}).touch()\n")
    line = run("train", "--recipe-json", code, "--out", tmp_path / "run").error_line()
    assert "is not valid JSON" in line
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "run").exists()

    data = tmp_path / "recipe.txt"
    data.write_text(load_recipe("quickstart").model_dump_json())
    out = tmp_path / "run"
    ended = run("train", "--recipe-json", data, "--device", "cpu", "--out", out, *TINY_SHAPES)
    assert ended.code == 0, ended.stderr
    again = ("train", "--recipe-json", out / "recipe.json", "--resume", "--out", out, "--device", "cpu", "--no-report")
    assert run(*again).code == 0


def test_two_recipes_are_one_too_many(run: Run) -> None:
    assert "name two recipes: drop one" in run("train", "quickstart", "--recipe-json", "x.json").error_line()
