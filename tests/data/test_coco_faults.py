import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligncli.data.coco_faults import find_faults, read_document
from aligncli.errors import DataError
from tests.data.conftest import box_record

NAN, INFINITY = float("nan"), float("inf")


def change(document, key, row, **values):
    document[key][row] |= values
    return [str(fault) for fault in find_faults(document)]


def test_a_good_document_has_no_faults(folder):
    """It holds gaps between category ids, an annotation id 0 and an image without annotations."""
    assert list(find_faults(folder.document("train"))) == []


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_every_list_must_be_there_and_filled(folder, key):
    document = folder.document("train")
    rest = {name: records for name, records in document.items() if name != key}
    assert f"{key}: must be a list (missing)" in [str(fault) for fault in find_faults(rest)]
    assert f"{key}: must be a list (7)" in [str(fault) for fault in find_faults(rest | {key: 7})]
    assert f"{key}: is empty" in [str(fault) for fault in find_faults(rest | {key: []})]
    assert f"{key}[1]: must be an object ('x')" in [str(fault) for fault in find_faults(rest | {key: [{}, "x"]})]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"id": "7"}, "categories[0].id: must be an integer ('7')"),
        ({"id": True}, "categories[0].id: must be an integer (True)"),
        ({"id": 2**63}, "categories[0].id: must be an integer (9223372036854775808)"),
        ({"id": 3, "name": "x"}, "categories[1].id: is used twice (3)"),
        ({"name": "star"}, "categories[2].name: is used twice ('star')"),
        ({"name": ""}, "categories[0].name: must be text without control characters ('')"),
        ({"name": "\x1b[2J"}, "categories[0].name: must be text without control characters ('\\x1b[2J')"),
        ({"name": None}, "categories[0].name: must be text without control characters (None)"),
    ],
)
def test_category_faults(folder, values, expected):
    assert expected in change(folder.document("train"), "categories", 0, **values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"id": 5.0}, "images[1].id: must be an integer (5.0)"),
        ({"id": 5}, "images[1].id: is used twice (5)"),
        ({"file_name": 3}, "images[1].file_name: must be text (3)"),
        (
            {"file_name": "../a.png"},
            "images[1].file_name: is refused ('../a.png': it must stay inside the image folder)",
        ),
        ({"width": 0}, "images[1].width: must be a positive integer (0)"),
        ({"height": -3}, "images[1].height: must be a positive integer (-3)"),
        ({"height": 30.5}, "images[1].height: must be a positive integer (30.5)"),
        ({"width": None}, "images[1].width: must be a positive integer (None)"),
        ({"width": 10**9}, "images[1].width: must be a positive integer (1000000000)"),
    ],
)
def test_image_faults(folder, values, expected):
    assert expected in change(folder.document("train"), "images", 1, **values)


@pytest.mark.parametrize(
    ("values", "kind", "fatal"),
    [
        ({"image_id": 99}, "annotations[0].image_id: is not the id of a listed one (99)", True),
        ({"image_id": [1]}, "annotations[0].image_id: is not the id of a listed one ([1])", True),
        ({"category_id": 1}, "annotations[0].category_id: is not the id of a listed one (1)", True),
        ({"category_id": None}, "annotations[0].category_id: is not the id of a listed one (None)", True),
        ({"iscrowd": 2}, "annotations[0].iscrowd: must be 0 or 1 (2)", True),
        ({"area": -1}, "annotations[0].area: must be a finite number, 0 or more (-1)", True),
        ({"area": NAN}, "annotations[0].area: must be a finite number, 0 or more (nan)", True),
        ({"id": "a"}, "annotations[0].id: must be an integer ('a')", False),
        ({"id": 8}, "annotations[1].id: is used twice (8)", False),
        ({"bbox": [1, 2, 3]}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": None}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": {"x": 1}}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": [1, 2, "3", 4]}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": [1, 2, True, 4]}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": [1, 2, NAN, 4]}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": [1, -INFINITY, 3, 4]}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": [1, 2, 3, 10**400]}, "annotations[0].bbox: must be four finite numbers", True),
        ({"bbox": [1, 2, -3, 4]}, "annotations[0].bbox: has a negative side", True),
        ({"bbox": [1, 2, 0, 4]}, "annotations[0].bbox: has no area and is left out of training", False),
        ({"bbox": [40, 2, 3, 4]}, "annotations[0].bbox: lies outside its image and is left out", False),
        ({"bbox": [1, -9, 3, 9]}, "annotations[0].bbox: lies outside its image and is left out", False),
        ({"bbox": [30, 2, 11.5, 4]}, "annotations[0].bbox: reaches over the border of its image", False),
        ({"bbox": [-2, 2, 11.5, 4]}, "annotations[0].bbox: reaches over the border of its image", False),
    ],
)
def test_annotation_faults(folder, values, kind, fatal):
    document = folder.document("train")
    document["annotations"][0] |= values
    found = list(find_faults(document))
    assert [str(fault).startswith(kind) for fault in found] == [True]
    assert found[0].fatal == fatal


def test_rounding_over_the_border_is_no_fault(folder):
    assert change(folder.document("train"), "annotations", 0, bbox=[-0.5, 2, 41.4, 28.9]) == []


def test_a_box_fault_names_annotation_and_image(folder):
    faults = change(folder.document("train"), "annotations", 1, bbox=[1, 2, -3, 4])
    assert faults == ["annotations[1].bbox: has a negative side (annotation id 8, image id 5: [1, 2, -3, 4])"]


def test_a_document_is_read(folder):
    assert read_document(folder.write("train", {"a": 1})) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"a": 1} trailing', "not valid JSON"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
        ('{"a": 1' + "0" * 5000 + "}", "not valid JSON"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
    ],
)
def test_what_is_not_a_json_object_is_one_line(folder, content, message):
    path = folder.write("train", content)
    with pytest.raises(DataError, match=message) as caught:
        read_document(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_not_valid_json(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(DataError, match="not valid JSON"):
        read_document(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"annotation file .*gone\.json: No such file"):
        read_document(Path(tmp_path / "gone.json"))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(2**70)
lists = st.lists(scalars, max_size=5)
values = scalars | lists | st.dictionaries(st.text(max_size=3), lists, max_size=2)
keys = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "file_name", "width", "height", "name"]
records = st.lists(st.dictionaries(st.sampled_from(keys), values, max_size=6) | values, max_size=4)
documents = st.dictionaries(st.sampled_from(["images", "annotations", "categories", "info"]), records | values)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=documents)
def test_wild_documents_have_faults_in_one_line_each(document):
    faults = [str(fault) for fault in find_faults(json.loads(json.dumps(document)))]
    assert faults
    assert all("\n" not in fault and len(fault) < 400 for fault in faults)


def test_masks_are_dropped_while_the_file_is_read(tmp_path):
    """They are most of a file; kept, they would take more memory than all else."""
    mask = [[float(number) for number in range(92)]]
    records = [box_record(row, image_id=1, category_id=1, bbox=[0, 0, 4, 4], segmentation=mask) for row in range(4000)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"annotations": records}))
    sizes = []
    for masks in (False, True):
        tracemalloc.start()
        document = read_document(path, masks=masks)
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert ("segmentation" in document["annotations"][0]) is masks
    assert sizes[0] < 3 * path.stat().st_size < sizes[1]
