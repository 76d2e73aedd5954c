"""YOLO and VOC folders become COCO folders without a fault, box for box."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligncli.config import CocoConfig
from aligncli.data.check import check_folder
from aligncli.data.coco import CocoDataset
from aligncli.data.convert import assign_splits, convert, split_document
from aligncli.data.voc import read_voc
from aligncli.data.yolo import read_yolo
from aligncli.errors import DataError
from tests.data.other_formats import OBJECT, picture, voc_folder, yolo_folder


def boxes(documents):
    """By file name: (class, box, crowd)."""
    found = {}
    for document in documents.values():
        names = {record["id"]: record["name"] for record in document["categories"]}
        files = {record["id"]: record["file_name"] for record in document["images"]}
        for record in document["annotations"]:
            item = (names[record["category_id"]], record["bbox"], record["iscrowd"])
            found.setdefault(files[record["image_id"]], []).append(item)
    return found


def to_folder(source, root: Path, **how):
    documents = convert(source, root / "images", **how)
    (root / "annotations").mkdir()
    for split, document in documents.items():
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return documents


def test_yolo_boxes_and_polygons_become_pixels(tmp_path):
    documents = to_folder(read_yolo(yolo_folder(tmp_path / "yolo")), tmp_path / "coco", val_share=0.4)
    assert boxes(documents) == {
        "a.png": [("dog", [10, 12, 20, 6], 0), ("cat", [0, 0, 12, 9], 0)],  # the second reaches over the border
        "b.png": [("cat", [10, 15, 20, 15], 0)],
    }
    assert sum(len(document["images"]) for document in documents.values()) == 3
    with_boxes = {split: document for split, document in documents.items() if document["annotations"]}
    faults = check_folder(tmp_path / "coco").faults
    assert all("annotations: is empty" in fault for fault in faults)
    assert len(faults) == 2 - len(with_boxes)


def test_yolo_s_own_splits_are_kept_wherever_its_paths_point(tmp_path):
    """Roboflow writes ../train/images, others the absolute path of the machine that made it."""
    root = tmp_path / "yolo"
    for split in ("train", "valid"):
        for row in range(2):
            picture(root / split / "images" / f"{split}{row}.jpg")
            labels = root / split / "labels"
            labels.mkdir(exist_ok=True)
            (labels / f"{split}{row}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("names: {0: fish}\ntrain: ../train/images\nval: /home/x/valid/images\n")
    documents = to_folder(read_yolo(root), tmp_path / "coco")
    names = {split: [image["file_name"] for image in document["images"]] for split, document in documents.items()}
    assert names == {
        "train": ["train/train0.jpg", "train/train1.jpg"],
        "val": ["valid/valid0.jpg", "valid/valid1.jpg"],
    }
    assert check_folder(tmp_path / "coco").faults == []
    assert CocoDataset(CocoConfig(root=str(tmp_path / "coco")), "val")[0][1]["boxes"].tolist() == [[10, 7.5, 30, 22.5]]


def test_class_names_can_lie_in_a_text_file(tmp_path):
    root = yolo_folder(tmp_path / "yolo", yaml=None)
    with pytest.raises(DataError, match="names no classes"):
        read_yolo(root)
    (root / "classes.txt").write_text("cat\ndog\n")
    assert read_yolo(root).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", "line 1: class '2': expected a number from 0 to 1"),
        ("cat 0.5 0.5 0.5 0.5", "class 'cat'"),
        ("0 20 15 10 10", "expected shares of the image, 0 to 1"),
        ("0 nan 0.5 0.5 0.5", "expected shares of the image"),
        ("0 0.5 0.5 0.5", "3 values behind the class"),
        ("0 0.5 0.5 -0.2 0.2", "expected a width and a height of 0 or more"),
        ("0 0.5 0.5 0.5 wide", "could not convert"),
    ],
)
def test_a_bad_label_line_is_named(tmp_path, line, message):
    root = yolo_folder(tmp_path / "yolo")
    (root / "labels" / "a.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        convert(read_yolo(root), tmp_path / "images", val_share=0.4)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [cat, cat]", "names no classes"),
        ("names: {1: cat}", "names no classes"),
        ("names: [cat, dog]\ntrain: gone", "names 'gone' for train: there is no such folder"),
        ("[", "is not YAML"),
        ("just text", "expected keys such as names"),
        ("!!python/object/apply:os.system ['touch hacked']", "is not YAML"),
    ],
)
def test_a_bad_data_yaml_is_named_and_runs_nothing(tmp_path, monkeypatch, yaml, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        read_yolo(yolo_folder(tmp_path / "yolo", yaml=yaml))
    assert not (tmp_path / "hacked").exists()


def test_voc_counts_pixels_from_one_and_difficult_objects_are_crowd_regions(tmp_path):
    root = voc_folder(
        tmp_path / "voc",
        {
            "x": [OBJECT.format(name="dog", difficult=0, box=(1, 1, 10, 20))],
            "y": [OBJECT.format(name="cat", difficult=1, box=(5, 6, 40, 30))],
        },
    )
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("x\n")
    (root / "ImageSets" / "Main" / "val.txt").write_text("y -1\n")
    documents = to_folder(read_voc(root), tmp_path / "coco")
    assert boxes(documents) == {"x.jpg": [("dog", [0, 0, 10, 20], 0)], "y.jpg": [("cat", [4, 5, 36, 25], 1)]}
    assert [image["file_name"] for image in documents["val"]["images"]] == ["y.jpg"]
    assert check_folder(tmp_path / "coco").faults == []


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>", "is not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "document types and entities are refused"),
        ("<annotation/>", "<annotation> lacks <filename>"),
        ("<annotation><filename>../../x.jpg</filename></annotation>", "is refused"),
        ("<annotation><filename>gone.jpg</filename></annotation>", "image 'gone.jpg' is not in"),
    ],
)
def test_a_bad_xml_file_is_named(tmp_path, xml, message):
    root = voc_folder(tmp_path / "voc", {"x": []})
    (root / "Annotations" / "x.xml").write_text(xml)
    with pytest.raises(DataError, match=message):
        read_voc(root)


def test_a_box_without_numbers_is_named(tmp_path):
    root = voc_folder(
        tmp_path / "voc", {name: [OBJECT.format(name="a", difficult=0, box=(1, 1, "?", 2))] for name in "xy"}
    )
    with pytest.raises(DataError, match="<bndbox/xmax> is '\\?', expected a number of pixels"):
        convert(read_voc(root), tmp_path / "images", val_share=0.5)


def test_the_same_seed_puts_the_same_images_aside():
    first, again, other = (assign_splits([None] * 50, val_share=0.2, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert first.count("val") == 10
    with pytest.raises(DataError, match="the val split of 3 images is empty: change --val-share"):
        assign_splits([None] * 3, val_share=0.0, seed=0)


def test_one_document_is_split_by_image(folder):
    document = folder.document("train") | {"info": "kept"}
    parts = split_document(document, val_share=0.34, seed=1)
    assert [len(part["images"]) for part in parts.values()] == [2, 1]
    for key in ("images", "annotations"):
        together = [record for part in parts.values() for record in part[key]]
        assert sorted(together, key=lambda record: record["id"]) == sorted(
            document[key], key=lambda record: record["id"]
        )
    for part in parts.values():
        ids = {image["id"] for image in part["images"]}
        assert {record["image_id"] for record in part["annotations"]} <= ids
        assert part["info"] == "kept"


def test_links_are_the_very_files(tmp_path):
    root = yolo_folder(tmp_path / "yolo")
    convert(read_yolo(root), tmp_path / "images", val_share=0.4, link=True)
    assert (tmp_path / "images" / "a.png").samefile(root / "images" / "a.png")
