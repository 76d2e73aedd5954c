"""Repaired annotations have no faults, and what was sound is as it was."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aligncli.config import CocoConfig
from aligncli.data.check import check_folder, repair_split
from aligncli.data.coco_faults import find_faults
from aligncli.data.repair import describe, repair
from aligncli.errors import DataError

SIZES = {0: (30, 40), 1: (30, 40), 2: (30, 40)}


def sound():
    return {
        "info": {"kept": True},
        "images": [
            {"id": row + 5, "file_name": f"{row}.png", "width": 40, "height": 30, "coco_url": "kept"}
            for row in range(3)
        ],
        "annotations": [
            {"id": row, "image_id": row + 5, "category_id": 3, "bbox": [1, 2, 10, 11], "area": 110, "iscrowd": 0}
            for row in range(3)
        ],
        "categories": [{"id": 3, "name": "cat", "supercategory": "kept"}],
    }


def broken(**changes):
    document = sound()
    document["annotations"][0] |= changes
    return document


def test_sound_annotations_stay_as_they_are_to_the_last_key():
    document = sound()
    document["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    document["annotations"][1]["bbox"] = [-0.5, 2, 10, 11]  # within what annotation tools round
    before = copy.deepcopy(document)
    repaired, done = repair(document, SIZES)
    assert repaired == document == before
    assert not done
    assert repaired["images"][0] is not document["images"][0]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"bbox": [1, 2, 0, 3]}, "their box has no area in the image"),
        ({"bbox": [50, 2, 5, 5]}, "their box has no area in the image"),
        ({"bbox": [1, 2, -3, 3]}, "their box has no area in the image"),
        ({"bbox": [1, float("nan"), 3, 3]}, "their box has no area in the image"),
        ({"bbox": "wide"}, "their box has no area in the image"),
        ({"image_id": 99}, "their image is not there"),
        ({"image_id": True}, "their image is not there"),
        ({"category_id": 4}, "their category is not listed"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_left_out(changes, kind):
    repaired, done = repair(broken(**changes), SIZES)
    assert describe(done) == [f"1 annotations left out: {kind}"]
    assert repaired["annotations"] == sound()["annotations"][1:]


def test_a_box_is_cut_at_the_border_and_its_area_follows():
    repaired, done = repair(broken(bbox=[-4, 20, 10, 30], area=300), SIZES)
    assert repaired["annotations"][0]["bbox"] == [0, 20, 6, 10]
    assert "area" not in repaired["annotations"][0]  # readers take width x height
    assert done == {"boxes cut at the border of their image": 1}


def test_ids_areas_and_crowd_flags():
    document = broken(area=-1, iscrowd=2)
    document["annotations"][2]["id"] = 1
    repaired, done = repair(document, SIZES)
    assert [record["id"] for record in repaired["annotations"]] == [0, 1, 2]
    assert repaired["annotations"][0]["area"] == 110
    assert repaired["annotations"][0]["iscrowd"] == 0
    assert sum(done.values()) == 3


def test_an_image_that_cannot_be_read_goes_with_its_annotations():
    repaired, done = repair(sound(), SIZES | {1: None})
    assert [record["id"] for record in repaired["images"]] == [5, 7]
    assert [record["image_id"] for record in repaired["annotations"]] == [5, 7]
    assert sum(done.values()) == 2


RESIZED = "image sizes corrected and their annotations scaled"
ANOTHER = "images left out: annotated at another size, and the file is not that image resized"


def test_a_size_that_is_not_stated_becomes_the_file_s_before_boxes_are_cut():
    document = broken(bbox=[1, 2, 50, 60])
    del document["images"][0]["width"]
    repaired, done = repair(document, SIZES)
    assert (repaired["images"][0]["height"], repaired["images"][0]["width"]) == (30, 40)
    assert repaired["annotations"][0]["bbox"] == [1, 2, 39, 28]
    assert done["image sizes corrected"] == 1


@pytest.mark.parametrize("size", [(40, 30), (30, 44), (8, 8), (60, 90), (80, 61)])
def test_boxes_of_another_frame_go_with_their_image(size):
    """Turned by EXIF, cut, exchanged: where the objects are in the file, nobody has said."""
    repaired, done = repair(sound(), SIZES | {0: size})
    assert [record["id"] for record in repaired["images"]] == [6, 7]
    assert [record["image_id"] for record in repaired["annotations"]] == [6, 7]
    assert done == {ANOTHER: 1, "annotations left out: their image is not there": 1}


def test_a_size_is_corrected_where_nothing_is_annotated():
    document = sound()
    del document["annotations"][0]
    repaired, done = repair(document, SIZES | {0: (40, 30)})
    assert (repaired["images"][0]["height"], repaired["images"][0]["width"]) == (40, 30)
    assert repaired["annotations"] == document["annotations"]
    assert done == {"image sizes corrected": 1}


def test_a_resized_image_takes_its_boxes_masks_and_key_points_along():
    document = broken(segmentation=[[1, 2, 11, 2, 11, 13]], area=55, keypoints=[1, 2, 2, 0, 0, 0], score=0.5)
    repaired, done = repair(document, SIZES | {0: (60, 80)})
    assert repaired["images"][0] == document["images"][0] | {"height": 60, "width": 80}
    assert repaired["annotations"][0] == document["annotations"][0] | {
        "bbox": [2, 4, 20, 22],
        "segmentation": [[2, 4, 22, 4, 22, 26]],
        "area": 220,
        "keypoints": [2, 4, 2, 0, 0, 0],
    }
    assert repaired["annotations"][1:] == document["annotations"][1:]
    assert done == {RESIZED: 1}


def test_each_side_of_a_resized_image_has_its_own_rounding():
    repaired, done = repair(sound(), SIZES | {0: (101, 133)})  # of 30 x 40, which was 30 x 39.5
    assert repaired["annotations"][0]["bbox"] == [3.325, 6.733, 33.25, 37.033]
    assert done == {RESIZED: 1}


def test_run_lengths_cannot_be_scaled_and_their_area_can():
    document = broken(segmentation={"counts": [100, 1100], "size": [30, 40]}, iscrowd=1)
    repaired, done = repair(document, SIZES | {0: (60, 80)})
    assert "segmentation" not in repaired["annotations"][0]
    assert repaired["annotations"][0]["area"] == 440
    assert done == {RESIZED: 1, "masks left out: no polygons that could be scaled": 1}


@pytest.mark.parametrize(
    "changes", [{"categories": []}, {"categories": [{"id": 3}]}, {"images": []}, {"annotations": "none"}]
)
def test_what_cannot_be_repaired_is_said(changes):
    with pytest.raises(DataError, match="cannot be repaired: "):
        repair(sound() | changes, SIZES)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 60) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["id", "bbox", "image_id"]), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_json_holds_the_result_is_sound_or_one_line_says_why_not(data):
    document = sound()
    for _ in range(data.draw(st.integers(1, 4))):
        records = document[data.draw(st.sampled_from(["images", "annotations", "categories"]))]
        row = data.draw(st.integers(0, len(records) - 1))
        if isinstance(records[row], dict) and data.draw(st.booleans()):
            keys = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "width", "file_name", "name"]
            records[row][data.draw(st.sampled_from(keys))] = data.draw(VALUES)
        else:
            records[row] = data.draw(VALUES)
    try:
        repaired, _ = repair(document, SIZES)
    except DataError as error:
        repaired, message = None, str(error)
        assert message.startswith("cannot be repaired: ")
        assert "\n" not in message
    assert repaired is None or list(find_faults(repaired)) == []


def test_a_folder_is_sound_with_its_repaired_annotations(folder):
    document = folder.document("train")
    document["images"][0]["width"] = 41
    document["annotations"][2]["category_id"] = 1
    document["annotations"][0]["segmentation"] = [[1.0, 2.0, 3.0]]
    path = folder.write("train", document)
    (folder.images / "train2.png").write_bytes(b"broken")
    repaired, done = repair_split(CocoConfig(root=str(folder.root)), "train")
    assert sum(done.values()) == 3
    kept = [record for record in repaired["annotations"] if "segmentation" in record]
    assert len(kept) == 1
    path.write_text(json.dumps(repaired))
    assert check_folder(folder.root).faults == []


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_an_image_that_exif_turns_do_not_pass_in_the_stored_frame(folder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for row in (1, 2):  # the first with boxes, the second with none
        Image.new("RGB", (40, 30)).save(folder.images / f"train{row}.png", exif=exif)
    repaired, done = repair_split(CocoConfig(root=str(folder.root)), "train")
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in repaired["images"]}
    assert sizes == {"train0.png": (40, 30), "train2.png": (30, 40)}
    assert {record["image_id"] for record in repaired["annotations"]} == {5}
    assert done == {ANOTHER: 1, "image sizes corrected": 1, "annotations left out: their image is not there": 2}


def test_where_no_image_is_left_the_line_says_why(folder):
    for row in range(3):
        Image.new("RGB", (30, 40)).save(folder.images / f"train{row}.png")
    document = folder.document("train")
    document["annotations"].append(document["annotations"][1] | {"id": 10, "image_id": 25})
    folder.write("train", document)
    with pytest.raises(DataError, match=f"cannot be repaired: images: is empty; 3 {ANOTHER}"):
        repair_split(CocoConfig(root=str(folder.root)), "train")


def test_every_image_is_counted(folder):
    for row in range(100):
        Image.new("RGB", (40, 30)).save(folder.images / f"more{row}.png")
    document = folder.document("train")
    document["images"] += [
        {"id": 1000 + row, "file_name": f"more{row}.png", "width": 40, "height": 30} for row in range(100)
    ]
    folder.write("train", document)
    told = []
    assert check_folder(folder.root, progress=lambda *count: told.append(count)).faults == []
    train = [count for count in told if count[1] == len(document["images"])]
    assert train[0][0] == 0
    assert train[-1] == (len(document["images"]),) * 2
    assert [done for done, _ in train] == sorted(done for done, _ in train)
