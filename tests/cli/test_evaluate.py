"""`aligncli eval`: metrics of a run or of two JSON files, for people and programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aligncli.engine.metrics import METRIC_NAMES
from tests.cli.command_line import Run, make_data_folder, make_test_split


@pytest.fixture
def files(data_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Ground truth, and results that find every object exactly."""
    annotations = data_folder / "annotations" / "instances_val.json"
    results = [
        {key: record[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for record in json.loads(annotations.read_text())["annotations"]
    ]
    detections = tmp_path / "results.json"
    detections.write_text(json.dumps(results))
    return annotations, detections


def test_perfect_results_score_100_and_undefined_metrics_are_null(run: Run, files: tuple[Path, Path]) -> None:
    ended = run("eval", "--annotations", files[0], "--detections", files[1], "--json")
    assert ended.code == 0, ended.stderr
    assert list(ended.json) == list(METRIC_NAMES)
    assert ended.json["AP"] == pytest.approx(100.0)
    assert ended.json["APs"] == pytest.approx(100.0)  # the boxes are 24 x 24
    assert ended.json["APm"] is None
    assert ended.json["APl"] is None


def test_people_get_a_table(run: Run, files: tuple[Path, Path]) -> None:
    ended = run("eval", "--annotations", files[0], "--detections", files[1], "--per-class")
    for text in ("AP75", "100.0", "-", "cat", "dog", "32^2", "96^2"):
        assert text in ended.stdout


def test_per_class_figures_are_added_to_the_json(run: Run, files: tuple[Path, Path]) -> None:
    ended = run("eval", "--annotations", files[0], "--detections", files[1], "--json", "--per-class")
    assert ended.json["per_class"] == {"cat": pytest.approx(100.0), "dog": pytest.approx(100.0)}


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_the_evaluator_can_be_chosen(run: Run, files: tuple[Path, Path], evaluator: str) -> None:
    ended = run("eval", "--annotations", files[0], "--detections", files[1], "--evaluator", evaluator)
    assert ended.code == 0
    assert evaluator in ended.stdout


def test_scoring_files_imports_no_torch(files: tuple[Path, Path]) -> None:
    program = (
        "import sys\nfrom aligncli.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, "eval", "--annotations", str(files[0]), "--detections", str(files[1])]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--annotations", "a.json"],
        ["--detections", "d.json"],
        ["run", "--annotations", "a.json"],
        ["run", "--annotations", "a.json", "--detections", "d.json"],
    ],
)
def test_a_run_and_files_exclude_each_other(run: Run, arguments: list[str]) -> None:
    line = run("eval", *arguments).error_line()
    assert "either a RUN folder, or both --annotations JSON and --detections JSON" in line


def test_data_goes_with_a_run_alone(run: Run, data_folder: Path) -> None:
    line = run("eval", "--annotations", "a", "--detections", "b", "--data", data_folder).error_line()
    assert "--data goes with a RUN folder" in line


def test_missing_and_broken_files_are_named(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    missing, broken = tmp_path / "missing.json", tmp_path / "broken.json"
    broken.write_text("{")
    for path in (missing, broken):
        assert str(path) in run("eval", "--annotations", files[0], "--detections", path).error_line()
        assert str(path) in run("eval", "--annotations", path, "--detections", files[1]).error_line()


def test_a_run_is_evaluated_on_its_own_validation_images(run: Run, trained_run: Path) -> None:
    ended = run("eval", trained_run, "--json", "--device", "cpu")
    assert ended.code == 0, ended.stderr
    assert list(ended.json) == list(METRIC_NAMES)
    assert "evaluating 3/3" in ended.stderr


def test_people_see_how_a_run_was_evaluated(run: Run, trained_run: Path) -> None:
    ended = run("eval", trained_run, "--device", "cpu", "--per-class", "--split", "train")
    for text in ("train split, 4 images", "ellipse", "scored by"):
        assert text in ended.stdout


def test_classes_that_differ_between_checkpoint_and_data_are_refused(
    run: Run, trained_run: Path, data_folder: Path
) -> None:
    line = run("eval", trained_run, "--data", data_folder, "--device", "cpu").error_line()
    assert str(data_folder) in line
    assert "cat" in line


def test_what_is_no_run_folder_is_named(run: Run, tmp_path: Path) -> None:
    line = run("eval", tmp_path, "--device", "cpu").error_line()
    assert f"{tmp_path} holds no recipe.json" in line


def test_a_folder_with_the_same_classes_can_be_evaluated(run: Run, trained_run: Path, tmp_path: Path) -> None:
    names = json.loads((trained_run / "categories.json").read_text())["names"]
    folder = make_data_folder(tmp_path / "data", classes=names)
    ended = run("eval", trained_run, "--data", folder, "--json", "--device", "cpu")
    assert ended.code == 0, ended.stderr
    assert "AP" in ended.json


def test_the_detections_can_be_saved_and_scored(run: Run, trained_run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "new" / "detections.json"
    ended = run("eval", trained_run, "--device", "cpu", "--save", saved)
    assert ended.code == 0, ended.stderr
    assert str(saved) in ended.stdout
    assert saved.read_bytes() == (trained_run / "results.json").read_bytes()
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.fixture
def test_dev(trained_run: Path, tmp_path: Path) -> Path:
    """COCO's layout of test images, with the classes of the trained run."""
    names = json.loads((trained_run / "categories.json").read_text())["names"]
    return make_test_split(tmp_path / "coco", names=names)


def test_test_dev_gives_a_file_for_the_server_and_no_metrics(
    run: Run, trained_run: Path, test_dev: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "detections.json"
    command = ("eval", trained_run, "--split", "test", "--data", test_dev, "--device", "cpu", "--save", saved)
    before = {path.name: path.stat().st_mtime_ns for path in trained_run.iterdir()}
    ended = run(*command, "--json")
    assert ended.code == 0, ended.stderr
    detections = json.loads(saved.read_text())
    assert ended.json == {"detections": len(detections), "images": 2, "file": str(saved)}
    assert {path.name: path.stat().st_mtime_ns for path in trained_run.iterdir()} == before
    people = run(*command).stdout
    for text in (f"{len(detections):,} detections", "2 images", "detections_test-dev2017_ALG_results.json"):
        assert text in people
    assert "AP" not in people


def test_test_dev_works_with_a_torchvision_detector(run: Run, tmp_path: Path) -> None:
    folder, saved = make_test_split(tmp_path / "coco", names=["person", "bicycle"]), tmp_path / "detections.json"
    source = ("torchvision:ssdlite320_mobilenet_v3_large", "--weights", "none")
    ended = run("eval", *source, "--split", "test", "--data", folder, "--save", saved, "--device", "cpu", "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["images"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--split test needs --save FILE.json"),
        (["--save", "FILE", "--per-class"], "--evaluator and --per-class need annotations"),
        (["--save", "FILE", "--evaluator", "hotcoco"], "--evaluator and --per-class need annotations"),
        (["--save", "FILE"], "the shapes of quickstart have no test split: add --data COCO"),
        (["--save", "FOLDER"], "is a folder: expected the name of a .json file"),
        (["--save", "FILE", "--data", "FOLDER"], "lacks annotations/image_info_test-dev2017.json"),
    ],
)
def test_what_test_dev_needs(run: Run, trained_run: Path, tmp_path: Path, options: list[str], message: str) -> None:
    known = {"FILE": tmp_path / "d.json", "FOLDER": tmp_path}
    arguments = [known.get(option, option) for option in options]
    assert message in run("eval", trained_run, "--split", "test", "--device", "cpu", *arguments).error_line()
    assert not (tmp_path / "d.json").exists()


def test_a_folder_for_a_name_is_refused_before_anything_is_detected(
    run: Run, trained_run: Path, tmp_path: Path
) -> None:
    line = run("eval", trained_run, "--save", tmp_path, "--device", "cpu").error_line()
    assert f"{tmp_path} is a folder" in line


@pytest.mark.parametrize("options", [["--save", "x.json"], ["--split", "test"], ["--amp", "none"], ["--compile"]])
def test_files_that_are_scored_take_nothing_that_is_about_detecting(run: Run, options: list[str]) -> None:
    line = run("eval", "--annotations", "a", "--detections", "b", *options).error_line()
    assert "--save, --split test, --amp and --compile go with a RUN folder" in line


def test_only_eval_knows_the_test_split(run: Run, data_folder: Path) -> None:
    assert "--split" in run("data", "stats", data_folder, "--split", "test").error_line()
