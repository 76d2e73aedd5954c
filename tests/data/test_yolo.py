"""What YOLO folders of the wild get wrong is told, or read as it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligncli.data.convert import Box
from aligncli.data.yolo import read_yolo
from aligncli.errors import DataError
from tests.data.other_formats import picture, yolo_folder

BOM = "\ufeff"


def split_folder(root: Path, *, train: str, val: str) -> Path:
    """Two images with labels in train/ and in valid/, and a flat images/ with others beside them."""
    yolo_folder(root, yaml=f"names: [cat, dog]\ntrain: {train}\nval: {val}\n")
    for split in ("train", "valid"):
        for row in range(2):
            picture(root / split / "images" / f"{row}.png")
            label = root / split / "labels" / f"{row}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text("0 0.5 0.5 0.5 0.5\n")
    return root


def names_by_split(root: Path) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for image in read_yolo(root).images:
        found.setdefault(image.split, []).append(image.file_name)
    return found


def boxes_of(root: Path, name: str) -> list[Box]:
    (image,) = (image for image in read_yolo(root).images if image.file_name == name)
    return image.read(40, 30)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("../train/images", "../valid/images"),
        ("/home/x/set/train/images", "valid/images/"),
        ("train", "./valid"),
        ("../set/train", "[valid/images, ../valid/images]"),
    ],
)
def test_folders_are_found_by_the_last_parts_of_what_names_them(tmp_path, train, val):
    root = split_folder(tmp_path / "yolo", train=train, val=val)
    assert names_by_split(root) == {
        "train": ["train/0.png", "train/1.png"],
        "val": ["valid/0.png", "valid/1.png"],
    }


@pytest.mark.parametrize("missing", ["../training/images", "/home/x/training/images", "training/images", "training"])
def test_a_missing_folder_is_not_replaced_by_one_of_another_name(tmp_path, missing):
    root = split_folder(tmp_path / "yolo", train=missing, val="../valid/images")
    with pytest.raises(DataError, match=f"names '{missing}' for train: there is no such folder below .*; correct it"):
        read_yolo(root)


@pytest.mark.parametrize(
    ("train", "val"),
    [("images", "images"), ("../images", "./images"), ("train", "train/images"), ("[train, valid]", "valid")],
)
def test_an_image_in_both_splits_is_refused(tmp_path, train, val):
    root = split_folder(tmp_path / "yolo", train=train, val=val)
    with pytest.raises(DataError, match=r"names the same images for train and val, [23] of them, the first is .*png: "):
        read_yolo(root)


def test_a_link_to_the_other_split_s_folder_is_seen_through(tmp_path):
    root = split_folder(tmp_path / "yolo", train="train", val="linked")
    (root / "linked").symlink_to(root / "train")
    with pytest.raises(DataError, match="names the same images for train and val"):
        read_yolo(root)


def test_the_boxes_of_a_pose_data_set_are_no_polygons(tmp_path):
    root = yolo_folder(tmp_path / "yolo", yaml="names: [cat, dog]\nkpt_shape: [2, 3]\n")
    (root / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.2 0.9 0.9 2 0 0 0\n")
    assert boxes_of(root, "a.png") == [Box("dog", (10, 12, 20, 6))]
    (root / "labels" / "a.txt").write_text("1 0.5 0.5 0.5\n")
    with pytest.raises(DataError, match="line 1: 3 values behind the class"):
        boxes_of(root, "a.png")


def test_a_byte_order_mark_is_no_part_of_a_class_or_a_number(tmp_path):
    root = yolo_folder(tmp_path / "yolo", yaml=None)
    (root / "classes.txt").write_text(BOM + "cat\ndog\n", encoding="utf-8")
    (root / "labels" / "a.txt").write_text(BOM + "0 0.5 0.5 0.5 0.2\n", encoding="utf-8")
    assert boxes_of(root, "a.png") == [Box("cat", (10, 12, 20, 6))]
    (root / "data.yaml").write_text(BOM + "names: [fish]\n", encoding="utf-8")
    assert read_yolo(root).classes == ("fish",)


def test_images_without_any_label_file_are_no_data_set(tmp_path):
    root = yolo_folder(tmp_path / "yolo")
    (root / "labels").rename(root / "annotations")
    with pytest.raises(DataError) as refused:
        read_yolo(root)
    assert str(refused.value).startswith(
        f"none of the 3 images has a label file; the first that was looked for is {root}"
    )
    assert "labels/a.txt: labels/ must lie beside images/" in str(refused.value)


def test_a_split_without_any_label_file_is_named(tmp_path):
    root = split_folder(tmp_path / "yolo", train="train/images", val="valid/images")
    (root / "valid" / "labels" / "0.txt").unlink()
    assert len(names_by_split(root)["val"]) == 2  # no label file says that nothing is there
    (root / "valid" / "labels" / "1.txt").unlink()
    with pytest.raises(DataError, match=r"none of the 2 images of val has a label file; .*valid/labels/0\.txt"):
        read_yolo(root)
