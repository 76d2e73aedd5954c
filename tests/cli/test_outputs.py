"""What a command writes is of its kind, and replaces nothing that a run or a data set consists of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from aligncli.engine.run_folder import OWN_FILES
from tests.cli.command_line import Run


@pytest.fixture
def copied_run(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        (("extract",), "model.safetensors", "belongs to the run in"),
        (("report",), "recipe.json", "expected a name that ends in .html or .htm"),
        (("export",), "recipe.json", "expected a name that ends in .onnx"),
        (("export", "--format", "torch"), "metrics.jsonl", "expected a name that ends in .pt2"),
    ],
)
def test_a_run_s_own_files_are_not_written_over(
    run: Run, copied_run: Path, command: tuple[str, ...], name: str, said: str
) -> None:
    before = contents(copied_run)
    assert name in OWN_FILES
    assert said in run(*command, copied_run, "--out", copied_run / name).error_line()
    assert contents(copied_run) == before


def test_detections_do_not_replace_annotations(run: Run, trained_run: Path, data_folder: Path) -> None:
    annotations = next((data_folder / "annotations").glob("*.json"))
    before = annotations.read_bytes()
    line = run("eval", trained_run, "--save", annotations, "--device", "cpu").error_line()
    assert f"--save {annotations} holds something else than detections: choose another name" in line
    assert annotations.read_bytes() == before


def test_a_repaired_copy_does_not_replace_the_other_split(run: Run, data_folder: Path) -> None:
    before = contents(data_folder)
    for path in (data_folder / "annotations").glob("*.json"):
        for split in ("train", "val"):
            line = run("data", "check", data_folder, "--split", split, "--fix", path).error_line()
            assert line.endswith("name another one")
    assert contents(data_folder) == before


def test_pictures_do_not_replace_the_images_that_they_show(run: Run, trained_run: Path, tmp_path: Path) -> None:
    image = tmp_path / "cat.png"
    Image.new("RGB", (40, 30)).save(image)
    before = image.read_bytes()
    line = run("predict", trained_run, image, "--out", tmp_path, "--device", "cpu").error_line()
    assert line.endswith("cat.png would replace an image that is read: choose another --out")
    assert image.read_bytes() == before


def test_a_sheet_of_images_is_a_png(run: Run, data_folder: Path) -> None:
    annotations = next((data_folder / "annotations").glob("*.json"))
    line = run("data", "view", data_folder, "--out", annotations).error_line()
    assert line.endswith("expected a name that ends in .png")


def test_an_empty_name_is_no_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out "$OUT"` with a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    assert "it is empty: expected a folder" in run("train", "--out", "").error_line()
    assert list(tmp_path.iterdir()) == []


FOLDER_COMMANDS = [
    ("train",),
    ("predict", "RUN", "IMAGE"),
    ("analyze-alignment", "RUN"),
    ("analyze-alignment", "--explain"),
    ("import", "weights.pth"),
    ("data", "convert", "voc", "."),
    ("data", "split", "annotations.json"),
    ("data", "download", "coco"),
]
FILE_COMMANDS = [
    ("extract", "RUN", "--out", "x.safetensors"),
    ("report", "RUN", "--out", "x.html"),
    ("export", "RUN", "--out", "x.onnx"),
    ("eval", "RUN", "--save", "x.json"),
    ("data", "view", "shapes", "--out", "x.png"),
    ("bench", "op", "--plot", "x.png"),
]


@pytest.fixture
def fill(trained_run: Path, tmp_path: Path) -> Callable[[Sequence[str]], list[object]]:
    """A command's words with a run and an image in their places."""
    image = tmp_path / "cat.png"
    Image.new("RGB", (40, 30)).save(image)
    places = {"RUN": trained_run, "IMAGE": image}
    return lambda words: [places.get(word, word) for word in words]


@pytest.mark.parametrize("command", FOLDER_COMMANDS)
def test_a_folder_that_cannot_be_is_known_before_the_work(run: Run, fill, tmp_path: Path, command) -> None:
    (tmp_path / "file").write_text("mine")
    line = run(*fill(command), "--out", tmp_path / "file").error_line()
    assert line == f"--out {tmp_path / 'file'} is a file: expected a folder, which may be new"
    line = run(*fill(command), "--out", tmp_path / "file" / "below").error_line()
    assert line == f"--out {tmp_path / 'file' / 'below'}: {tmp_path / 'file'} is a file, not a folder"
    assert "it is empty: expected a folder" in run(*fill(command), "--out", "").error_line()


@pytest.mark.parametrize("command", FILE_COMMANDS)
def test_a_file_that_cannot_be_is_known_before_the_work(run: Run, fill, tmp_path: Path, command) -> None:
    (tmp_path / "file").write_text("mine")
    *words, option, name = command
    path = tmp_path / "file" / name
    line = run(*fill(words), option, path).error_line()
    assert line == f"{option} {path}: {tmp_path / 'file'} is a file, not a folder"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_may_not_be_written_in_is_known_before_the_work(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    line = run("train", "--out", tmp_path / "run").error_line()
    assert line == f"--out {tmp_path / 'run'}: {tmp_path} may not be written in"


def test_a_study_s_folder_is_no_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for more in ([], ["--dry-run"]):
        line = run("pilot", "--out", tmp_path / "file", *more).error_line()
        assert line.endswith("is a file: expected a folder, which may be new")
