"""`aligncli import`: from a weight file to a run that eval reads, and every way of saying so wrongly."""

from pathlib import Path

import pytest
import torch

from aligncli.engine.checkpoint import save_weights
from aligncli.engine.run_folder import RunFolder
from tests.cli.command_line import Run, make_data_folder
from tests.helpers import tiny_detector

SMALL = ("--recipe", "retinanet_small")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A detector of two classes."""
    path = tmp_path / "two classes.safetensors"
    save_weights(tiny_detector("retinanet_small", num_classes=2), path)
    return path


def test_a_run_folder_that_eval_reads(run: Run, weights: Path, data_folder: Path, tmp_path: Path) -> None:
    ended = run("import", weights, *SMALL, "--data", data_folder, "--out", tmp_path / "run", "--json")
    assert ended.code == 0, ended
    assert ended.json == {
        "run": str(tmp_path / "run"),
        "recipe": "retinanet_small",
        "source": str(weights),
        "classes": 2,
    }
    assert RunFolder(tmp_path / "run").read_categories().names == ("cat", "dog")
    assert run("eval", tmp_path / "run").code == 0
    assert run("train", "--resume", "--out", tmp_path / "run").error_line().endswith("start it again in another folder")


def test_it_says_what_to_do_next(run: Run, weights: Path, data_folder: Path, tmp_path: Path) -> None:
    ended = run("import", weights, *SMALL, "--data", data_folder, "--out", tmp_path / "run")
    assert f"aligncli eval {tmp_path / 'run'}" in ended.stdout


def test_classes_are_the_data_s_and_must_fit(run: Run, weights: Path, tmp_path: Path) -> None:
    three = make_data_folder(tmp_path / "three", classes=("cat", "dog", "fish"))
    line = run("import", weights, *SMALL, "--data", three, "--out", tmp_path / "run").error_line()
    assert "are not those of recipe 'retinanet_small'" in line
    assert not (tmp_path / "run").exists()


def test_without_data_the_classes_are_coco_s(run: Run, tmp_path: Path) -> None:
    save_weights(tiny_detector("retinanet_small", num_classes=80), tmp_path / "coco.safetensors")
    ended = run("import", tmp_path / "coco.safetensors", *SMALL, "--out", tmp_path / "run", "--json")
    assert ended.json["classes"] == 80
    assert RunFolder(tmp_path / "run").read_categories().coco_ids[-1] == 90


def test_an_existing_run_is_never_overwritten(run: Run, weights: Path, trained_run: Path) -> None:
    before = RunFolder(trained_run).weights_path.read_bytes()
    assert "already holds a run" in run("import", weights, *SMALL, "--out", trained_run).error_line()
    assert "is a file" in run("import", weights, *SMALL, "--out", weights).error_line()
    assert RunFolder(trained_run).weights_path.read_bytes() == before


def test_a_pickle_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    torch.save(tiny_detector("retinanet_small"), tmp_path / "model.pth")
    assert "aligncli never does" in run("import", tmp_path / "model.pth", "--out", tmp_path / "run").error_line()


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    assert "gone.pth" in run("import", tmp_path / "gone.pth", "--out", tmp_path / "run").error_line()
