"""`aligncli predict`: pictures with boxes, a table, and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from aligncli.cli.predict import picture_names
from tests.cli.command_line import Run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "my [photo].png"
    Image.new("RGB", (90, 60), (200, 30, 30)).save(path)
    return path


def test_every_image_becomes_a_picture_and_a_record(run: Run, trained_run: Path, image: Path, tmp_path: Path) -> None:
    ended = run("predict", trained_run, image, "--out", tmp_path / "out", "--score", "0", "--json", "--device", "cpu")
    assert ended.code == 0, ended.stderr
    [record] = ended.json
    assert record["image"] == str(image)
    with Image.open(record["picture"]) as picture:
        assert picture.format == "PNG"
        assert picture.width * 60 == picture.height * 90
    for detection in record["detections"]:
        assert set(detection) == {"class", "score", "box"}
        x1, y1, x2, y2 = detection["box"]
        assert 0 <= x1 <= x2 <= 90
        assert 0 <= y1 <= y2 <= 60
    scores = [detection["score"] for detection in record["detections"]]
    assert scores == sorted(scores, reverse=True)


def test_people_get_a_table_and_the_place(run: Run, trained_run: Path, image: Path) -> None:
    ended = run("predict", trained_run, image, "--score", "1", "--device", "cpu")
    assert ended.code == 0, ended.stderr
    assert "[photo].png" in ended.stdout.replace("\n", "")
    assert str(trained_run / "predictions") in ended.stdout
    assert (trained_run / "predictions" / "my [photo].png").is_file()


def test_no_images_missing_images_and_no_images_at_all_are_one_line(
    run: Run, trained_run: Path, image: Path, tmp_path: Path
) -> None:
    assert "no images given" in run("predict", trained_run).error_line()
    assert str(tmp_path / "missing.png") in run("predict", trained_run, image, tmp_path / "missing.png").error_line()
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert str(text) in run("predict", trained_run, text, "--device", "cpu").error_line()


def test_an_image_that_cannot_be_read_costs_the_others_nothing(
    run: Run, trained_run: Path, image: Path, tmp_path: Path
) -> None:
    """All that can be read are drawn and listed, each with its own picture; the exit code tells of the others."""
    text = tmp_path / "text.png"
    text.write_text("no image")
    second = tmp_path / "second.png"
    Image.new("RGB", (30, 20)).save(second)
    out = tmp_path / "out"
    words = ("predict", trained_run, text, image, text, second, "--out", out, "--device", "cpu")
    ended = run(*words)
    assert ended.code == 2
    assert "second.png" in ended.stdout
    assert ended.stderr.splitlines()[-1].startswith(f"error: 2 of 4 images were left out: image {text}")
    assert [path.name for path in sorted(out.iterdir())] == ["my [photo].png", "second.png"]
    as_json = run(*words, "--json")
    assert as_json.code == 2
    assert [Path(record["picture"]).name for record in as_json.json] == ["my [photo].png", "second.png"]
    with Image.open(as_json.json[1]["picture"]) as picture:
        assert picture.width * 20 == picture.height * 30


def test_run_and_image_in_the_wrong_order_are_told(run: Run, trained_run: Path, image: Path) -> None:
    assert "is a run folder: name the run first, then the images" in run("predict", image, trained_run).error_line()


def test_what_is_no_run_folder_is_named(run: Run, image: Path, tmp_path: Path) -> None:
    assert f"{tmp_path} holds no recipe.json" in run("predict", tmp_path, image, "--device", "cpu").error_line()


def test_pictures_of_equally_named_images_do_not_overwrite_each_other() -> None:
    images = [Path("a/dog.jpg"), Path("b/dog.jpg"), Path("dog.png"), Path("dog-2.jpg")]
    assert picture_names(images) == ["dog.png", "dog-2.png", "dog-3.png", "dog-2-2.png"]
