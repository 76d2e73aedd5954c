"""`aligncli data convert` and `data split` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.cli.command_line import Run


def yolo_folder(root: Path) -> Path:
    for row in range(4):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "labels").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (40 * row, 90, 200)).save(root / "images" / f"{row}.png")
        (root / "labels" / f"{row}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (root / "classes.txt").write_text("cat\n")
    return root


def test_a_yolo_folder_becomes_one_that_can_be_checked(run: Run, tmp_path: Path) -> None:
    source, out = yolo_folder(tmp_path / "yolo"), tmp_path / "new" / "coco"
    out.parent.mkdir()
    ended = run("data", "convert", "yolo", source, "--out", out, "--val-share", "0.25")
    assert ended.code == 0, ended.stderr
    assert "train: 3 images, 3 boxes" in ended.stdout
    assert "1 classes: cat" in ended.stdout
    assert run("data", "check", out).code == 0
    assert list(out.parent.iterdir()) == [out]
    assert "exists and is not empty" in run("data", "convert", "yolo", source, "--out", out).error_line()


def test_a_conversion_that_fails_leaves_nothing(run: Run, tmp_path: Path) -> None:
    source = yolo_folder(tmp_path / "yolo")
    (source / "labels" / "3.txt").write_text("7 0.5 0.5 0.4 0.4\n")
    ended = run("data", "convert", "yolo", source, "--out", tmp_path / "coco")
    assert ended.code == 2
    assert "3.txt, line 1: class '7'" in ended.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["yolo"]


def test_one_file_becomes_two(run: Run, data_folder: Path, tmp_path: Path) -> None:
    path = data_folder / "annotations" / "instances_train.json"
    told = run("data", "split", path, "--out", tmp_path / "halves", "--val-share", "0.5", "--json").json
    assert told["train"]["images"] == told["val"]["images"] == 2
    written = json.loads((tmp_path / "halves" / "instances_val.json").read_text())
    assert len(written["images"]) == 2
    assert "exists: name another folder" in run("data", "split", path).error_line()
