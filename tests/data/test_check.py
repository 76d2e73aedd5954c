import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from aligncli.data.check import check_folder
from aligncli.data.coco import CocoDataset
from aligncli.errors import DataError
from tests.data.png_files import GREY, png


def test_a_good_folder_has_no_faults(folder):
    assert check_folder(folder.root).faults == []


def test_a_missing_folder_is_one_fault(tmp_path):
    assert check_folder(tmp_path / "gone").faults == [f"data folder {tmp_path / 'gone'} does not exist"]


def test_a_missing_file_does_not_hide_the_faults_of_the_other(folder):
    (folder.root / "annotations" / "instances_train.json").unlink()
    (folder.images / "val1.png").unlink()
    missing, image = check_folder(folder.root).faults
    assert "lacks annotations/instances_train.json" in missing
    assert "images[1].file_name: cannot be used" in image


def test_other_layouts_can_be_named(folder):
    folder.images.rename(folder.root / "train2017")
    (folder.root / "val2017").symlink_to(folder.root / "train2017")
    (folder.root / "annotations" / "instances_train.json").rename(folder.root / "t.json")
    assert check_folder(folder.root, images="{split}2017", train_annotations="t.json").faults == []


def test_every_kind_of_fault_is_listed_with_its_place(folder):
    document = folder.document("train")
    document["images"][0]["width"] = 41
    document["annotations"][0]["bbox"] = [1, 2, 0, 3]
    document["annotations"][1]["category_id"] = 1
    path = folder.write("train", document)
    (folder.images / "train1.png").write_bytes(b"broken")
    (folder.images / "train2.png").unlink()
    faults = check_folder(folder.root).faults
    assert [fault.removeprefix(f"{path}: ").split(" (")[0] for fault in faults] == [
        "annotations[0].bbox: has no area and is left out of training",
        "annotations[1].category_id: is not the id of a listed one",
        "images[0].file_name: has another size",
        "images[1].file_name: cannot be used",
        "images[2].file_name: cannot be used",
    ]
    assert all("\n" not in fault for fault in faults)


def test_a_header_that_exif_turns_is_explained(folder):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (40, 30)).save(folder.images / "val0.png", exif=exif)
    (fault,) = check_folder(folder.root).faults
    assert "'val0.png' is 30 x 40, but its annotations say 40 x 30" in fault
    assert "EXIF turns it upright" in fault


def test_links_and_names_that_leave_the_folder_are_faults(folder, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    (folder.images / "val1.png").unlink()
    (folder.images / "val1.png").symlink_to(tmp_path / "secret.png")
    document = folder.document("val")
    document["images"][2]["file_name"] = "../../secret.png"
    folder.write("val", document)
    name, link = check_folder(folder.root).faults
    assert "images[2].file_name: is refused" in name
    assert "link out of the image folder" in link


def test_many_faults_of_a_kind_are_counted(folder):
    document = folder.document("train")
    document["annotations"] = [{"id": row, "image_id": 5, "category_id": 3, "bbox": [0, 0, 0, 1]} for row in range(12)]
    folder.write("train", document)
    found = check_folder(folder.root)
    assert len(found.faults) == 6
    assert found.faults[-1].endswith("7 more of the kind: has no area and is left out of training")
    assert found.counts["has no area and is left out of training"] == 12


def turned(image, path):
    exif = Image.Exif()
    exif[0x0112] = 8
    image.rotate(-90, expand=True).save(path, exif=exif)


UNUSUAL = {
    "is CMYK": lambda image, path: image.convert("CMYK").save(path, format="JPEG"),
    "has 16 bits a channel": lambda image, path: image.convert("I;16").save(path),
    "holds several pictures": lambda image, path: image.save(path, save_all=True, append_images=[image.rotate(180)]),
    "is turned upright": turned,
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_image_is_a_note_and_no_fault(folder, kind):
    path = folder.images / "val1.png"
    with Image.open(path) as image:
        UNUSUAL[kind](image.convert("L" if "16" in kind else "RGB"), path)
    found = check_folder(folder.root)
    assert found.faults == []
    (note,) = [note for note in found.notes if "images[1].file_name" in note]
    assert f"instances_val.json: images[1].file_name: {kind}" in note
    assert note.endswith("('val1.png')")


def test_an_image_of_one_pixel_is_noted(folder):
    Image.new("RGB", (1, 1)).save(folder.images / "val2.png")
    document = folder.document("val")
    document["images"][2] |= {"width": 1, "height": 1}
    folder.write("val", document)
    found = check_folder(folder.root)
    assert found.faults == []
    assert any("images[2].file_name: is 1 x 1 pixel ('val2.png')" in note for note in found.notes)


def test_a_decompression_bomb_is_a_fault_found_without_decoding_it(folder):
    """50 kB that would become 400 million pixels."""
    (folder.images / "val0.png").write_bytes(png(20_000, 20_000, bits=1, colour=GREY, row=bytes(2_500)))
    (fault,) = check_folder(folder.root).faults
    assert "images[0].file_name: cannot be used" in fault
    assert "pixels" in fault


def test_ids_of_zero_and_classes_without_annotations_are_noted(folder):
    document = folder.document("train")
    document["categories"][1]["id"] = 0
    document["annotations"][1]["category_id"] = 0
    document["categories"].append({"id": 91, "name": "whale"})
    folder.write("train", document)
    notes = [note.partition("instances_train.json: ")[2] for note in check_folder(folder.root).notes]
    assert "categories[1].id: is 0, which some tools take for background; here it is a class" in notes
    assert any(note.startswith("annotations[0].id: is 0, for which pycocotools") for note in notes)
    assert "categories[3]: has no annotation ('whale')" in notes


def test_classes_that_no_annotation_matches_are_faults(folder):
    document = folder.document("train")
    document["categories"] = [{"id": 100, "name": "other"}]
    folder.write("train", document)
    found = check_folder(folder.root)
    assert found.counts["is not the id of a listed one"] == 3
    assert any("3 categories, but 1 were expected" in fault for fault in found.faults)


def test_categories_of_the_splits_must_agree(folder):
    document = folder.document("val")
    document["categories"][0]["name"] = "lobster"
    folder.write("val", document)
    (fault,) = check_folder(folder.root).faults
    assert "instances_val.json: category id 7 'lobster' stands where id 7 'crab' was expected" in fault


def test_a_validation_image_must_not_be_trained_on(folder):
    document = folder.document("val")
    document["images"][1]["file_name"] = "./train2.png"
    folder.write("val", document)
    (fault,) = check_folder(folder.root).faults
    assert fault.endswith("instances_val.json: images[1].file_name: is a training image too ('train2.png')")


@pytest.mark.parametrize("real_set", ["aquarium", "coco_mini"], indirect=True)
def test_real_folders_are_faultless(real_set):
    assert check_folder(real_set).faults == []


wild = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 50),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "/", "train0.png", "../x", "a\0", "\ud800", 10**400]),
    st.lists(st.one_of(st.integers(-5, 50), st.floats(), st.none()), max_size=5),
    st.dictionaries(st.sampled_from(["id", "name", "bbox"]), st.integers(), max_size=2),
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["images", "annotations", "categories"]),
        st.integers(0, 2),
        st.sampled_from(
            [None, "id", "image_id", "category_id", "bbox", "area", "iscrowd", "file_name", "width", "height", "name"]
        ),
        wild,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits)
def test_wild_json_is_listed_or_usable_and_never_crashes(folder, edits):
    """check_folder never raises; CocoDataset raises nothing but DataError, and only where faults are listed."""
    document = folder.document("train")
    for key, row, field, value in edits:
        if field is None:
            document[key][row] = value
        elif isinstance(document[key][row], dict):
            document[key][row][field] = value
    folder.write("train", json.dumps(document))
    faults = check_folder(folder.root).faults
    assert all("\n" not in fault for fault in faults)
    try:
        dataset = CocoDataset(folder.config(), "train")
        targets = [dataset[index][1] for index in range(len(dataset))]
    except DataError:
        assert faults
    else:
        assert all(target["boxes"].isfinite().all() for target in targets)
        assert len(dataset.ground_truth()["annotations"]) == 3
