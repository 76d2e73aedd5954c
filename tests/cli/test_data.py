"""`aligncli data`: faults, figures and pictures of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.command_line import Run, make_data_folder


def test_a_sound_folder_has_no_faults(run: Run, data_folder: Path) -> None:
    ended = run("data", "check", data_folder)
    assert (ended.code, ended.stdout) == (0, f"{data_folder}: no faults\n")
    found = run("data", "check", data_folder, "--json").json
    assert found == {"folder": str(data_folder), "faults": [], "notes": [], "counts": {}}


def test_what_is_only_unusual_is_a_note_and_exit_code_0(run: Run, data_folder: Path) -> None:
    Image.new("CMYK", (64, 48)).save(data_folder / "images" / "val0.png", format="JPEG")
    ended = run("data", "check", data_folder)
    assert ended.code == 0
    note, end = ended.stdout.splitlines()
    assert note.startswith("note: ")
    assert note.endswith("images[0].file_name: is CMYK and read without its colour profile ('val0.png')")
    assert end == f"{data_folder}: no faults"
    counts = run("data", "check", data_folder, "--json").json["counts"]
    assert counts == {"is CMYK and read without its colour profile": 1}


def test_a_faulty_folder_gets_a_line_a_fault_and_exit_code_2(run: Run, data_folder: Path) -> None:
    path = data_folder / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [1, 2, -3, 4]
    document["annotations"][1]["category_id"] = 77
    path.write_text(json.dumps(document))
    (data_folder / "images" / "val2.png").write_bytes(b"broken")
    ended = run("data", "check", data_folder)
    assert ended.code == 2
    lines = ended.stdout.splitlines()
    assert len(lines) == 3
    for line, text in zip(lines, ("annotations[0].bbox", "annotations[1].category_id", "val2.png"), strict=True):
        assert text in line
    as_json = run("data", "check", data_folder, "--json")
    assert (as_json.code, as_json.json["faults"]) == (2, lines)


COMMANDS_WITH_DATA = [("data", "check"), ("data", "stats"), ("data", "view"), ("train", "--data")]


@pytest.mark.parametrize("command", COMMANDS_WITH_DATA)
def test_what_is_no_folder_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"data folder {tmp_path / 'nowhere'} does not exist" in run(*command, tmp_path / "nowhere").error_line()
    (tmp_path / "file").write_text("mine")
    assert f"data folder {tmp_path / 'file'} is a file: expected a folder" in run(*command, "file").error_line()
    assert "it is empty: expected a folder" in run(*command, "").error_line()


def test_the_embedded_data_has_no_files_to_check(run: Run) -> None:
    assert "shapes is the embedded data" in run("data", "check", "shapes").error_line()


def test_a_link_that_leads_in_a_circle_is_a_missing_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for command in COMMANDS_WITH_DATA:
        assert "loop does not exist" in run(*command, tmp_path / "loop").error_line()


def test_the_official_coco_layout_is_checked_without_a_word_about_it(run: Run, data_folder: Path) -> None:
    for split in ("train", "val"):
        annotations = data_folder / "annotations" / f"instances_{split}.json"
        annotations.rename(annotations.with_name(f"instances_{split}2017.json"))
        images = data_folder / f"{split}2017"
        images.mkdir()
        for path in (data_folder / "images").glob(f"{split}*"):
            path.rename(images / path.name)
    assert run("data", "check", data_folder).code == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_stats_count_and_measure(run: Run, data_folder: Path, split: str) -> None:
    stats = run("data", "stats", data_folder, "--split", split, "--json").json
    assert stats["num_images"] == 4
    assert stats["boxes_per_class"] == {"cat": 2, "dog": 2}
    assert stats["box_sizes"] == [24.0] * 5
    shown = run("data", "stats", data_folder, "--split", split).stdout
    for text in ("cat", "dog", "50.0%", "64 pixels", "48 pixels", "1.00"):
        assert text in shown


def test_the_embedded_shapes_can_be_described(run: Run) -> None:
    assert set(run("data", "stats", "shapes", "--split", "val", "--json").json["boxes_per_class"]) == {
        "ellipse",
        "rectangle",
        "triangle",
        "diamond",
        "cross",
        "ring",
    }


@pytest.mark.parametrize(("count", "indices"), [(2, [0, 2]), (3, [0, 1, 2]), (12, [0, 1, 2, 3])])
def test_a_view_is_a_sheet_of_images_spread_over_the_split(
    run: Run, data_folder: Path, tmp_path: Path, count: int, indices: list[int]
) -> None:
    out = tmp_path / "new" / "sheet.png"
    ended = run("data", "view", data_folder, "--out", out, "--count", count, "--json")
    assert ended.json == {"picture": str(out), "indices": indices}
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 400 * len(indices)


def test_a_missing_folder_is_one_error_line(run: Run, tmp_path: Path) -> None:
    for command in ("stats", "view"):
        line = run("data", command, tmp_path / "nowhere").error_line()
        assert f"{tmp_path / 'nowhere'} does not exist" in line


def test_a_repaired_copy_is_written_and_the_folder_left_alone(run: Run, data_folder: Path, tmp_path: Path) -> None:
    path = data_folder / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["annotations"][1]["bbox"] = [60, 8, 24, 24]
    path.write_text(json.dumps(document))
    before = path.read_bytes()
    out = tmp_path / "new" / "fixed.json"
    ended = run("data", "check", data_folder, "--split", "train", "--fix", out)
    assert ended.code == 0, ended.stderr
    assert "1 boxes cut at the border of their image" in ended.stdout
    assert path.read_bytes() == before
    assert json.loads(out.read_text())["annotations"][1]["bbox"] == [60, 8, 4, 24]
    told = run("data", "check", data_folder, "--split", "train", "--fix", out, "--json").json
    assert told["repairs"] == {"boxes cut at the border of their image": 1}
    assert told["annotations"] == 4


def test_repairing_needs_a_split_and_another_file(run: Run, data_folder: Path) -> None:
    path = data_folder / "annotations" / "instances_val.json"
    assert "add --split train or val" in run("data", "check", data_folder, "--fix", "x.json").error_line()
    assert "add --split train or val" in run("data", "check", data_folder, "--split", "val").error_line()
    line = run("data", "check", data_folder, "--split", "val", "--fix", path).error_line()
    assert "is the file that is to be repaired" in line
    line = run("data", "check", data_folder, "--split", "val", "--fix", data_folder).error_line()
    assert "is a folder: expected a file" in line
    line = run("data", "check", data_folder, "--split", "val", "--fix", path / "x.json").error_line()
    assert line.endswith(f"{path} is a file, not a folder")


def test_names_of_files_and_classes_are_text_on_the_terminal_not_markup_or_control_codes(
    run: Run, tmp_path: Path
) -> None:
    """rich would take brackets for colours, a terminal what follows an escape for a command."""
    classes = ("[bold red]cat[/]", "$x^{2", "dog\u202e")
    folder = make_data_folder(tmp_path / "data", classes=classes)
    stats = run("data", "stats", folder).stdout
    assert "[bold red]cat[/]" in stats
    assert "$x^{2" in stats
    assert "dog\N{REPLACEMENT CHARACTER}" in stats
    assert run("data", "view", folder, "--out", tmp_path / "v.png").code == 0

    path = folder / "annotations" / "instances_val.json"
    document = json.loads(path.read_text())
    document["images"][0]["file_name"] = "[red]gone[/].png"
    document["images"][1]["file_name"] = "\x1b]0;owned\x07.png"
    path.write_text(json.dumps(document))
    told = run("data", "check", folder)
    assert "[red]gone[/].png" in told.stdout
    assert "\x1b" not in told.stdout + told.stderr
    assert "\\x1b]0;owned" in told.stdout  # as Python writes it


def test_stats_say_how_well_a_recipes_anchors_cover_the_boxes(run: Run) -> None:
    told = run("data", "stats", "shapes", "--split", "val", "--recipe", "retinanet_small", "--json").json
    assert told["recipe"] == "retinanet_small"
    own, one, nine, implicit = told["coverage"]
    assert own["recall"] == nine["recall"] > one["recall"] == implicit["recall"]
    assert "mean best IoU" in run("data", "stats", "shapes", "--split", "val").stdout


def test_an_unknown_recipe_for_stats_is_one_line(run: Run) -> None:
    assert "unknown recipe 'fotos'" in run("data", "stats", "shapes", "--recipe", "fotos").error_line()
