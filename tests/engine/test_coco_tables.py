import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncli.engine.coco_tables import tabulate_detections, tabulate_ground_truth
from aligncli.errors import DataError

GROUND_TRUTH = {
    "images": [{"id": 9}, {"id": 3}],
    "categories": [{"id": 80, "name": "dog"}, {"id": 5, "name": "cat"}],
    "annotations": [
        {"id": 0, "image_id": 3, "category_id": 80, "bbox": [1, 2, 3, 4], "area": 6.5, "iscrowd": 1},
        {"id": 0, "image_id": 9, "category_id": 5, "bbox": [1.5, 2, 3, 4]},
    ],
}
DETECTIONS = [
    {"image_id": 9, "category_id": 80, "bbox": [1, 2, 3, 4], "score": 1},
    {"image_id": 3, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.5},
]
NOT_A_NUMBER = float("nan")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)


def test_ids_become_ranks_of_the_sorted_ids():
    table = tabulate_ground_truth(GROUND_TRUTH)
    assert table.category_names == ("cat", "dog")
    assert table.images.tolist() == [0, 1]
    assert table.categories.tolist() == [1, 0]
    found = tabulate_detections(DETECTIONS, table)
    assert found.images.tolist() == [1, 0]
    assert found.categories.tolist() == [1, 0]


def test_area_defaults_to_the_box_and_crowd_to_no():
    table = tabulate_ground_truth(GROUND_TRUTH)
    assert table.areas.tolist() == [6.5, 12.0]
    assert table.crowd.tolist() == [True, False]


def test_images_and_categories_listed_twice_count_once():
    twice = GROUND_TRUTH | {key: GROUND_TRUTH[key] * 2 for key in ("images", "categories")}
    table = tabulate_ground_truth(twice)
    assert len(table.image_ranks) == len(table.category_ranks) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"entry 1 has bbox \[1, 2, 3\]; expected four finite numbers"),
        ({"bbox": [1, 2, 3, NOT_A_NUMBER]}, "entry 1 has bbox .*nan"),
        ({"bbox": [1, 2, float("inf"), 4]}, "entry 1 has bbox .*inf"),
        ({"bbox": [1, 2, -3, 4]}, r"entry 1 has bbox .*-3.*sizes not negative"),
        ({"bbox": None}, "entry 1 has bbox None"),
        ({"bbox": ["1", "2", "3", "4"]}, "entry 1 has bbox"),
        ({"score": NOT_A_NUMBER}, "entry 1 has score nan; expected a finite number"),
        ({"score": "high"}, "entry 1 has score 'high'"),
        ({"score": None}, "entry 1 has score None"),
        ({"score": 10**400}, "entry 1 has score 1000"),
        ({"image_id": 4}, r"entry 1 has image_id 4, which is not in ground truth \(2 ids, 3 to 9\); 1 of 2"),
        ({"category_id": 1}, r"entry 1 has category_id 1, .*\(2 ids, 5 to 80\)"),
        ({"category_id": [1]}, r"entry 1 has category_id \[1\]"),
    ],
)
def test_a_faulty_detection_is_named(change, message):
    table = tabulate_ground_truth(GROUND_TRUTH)
    with pytest.raises(DataError, match=message):
        tabulate_detections([DETECTIONS[0], DETECTIONS[1] | change], table, source="D.json")


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_missing_key_is_named_with_its_entry(key):
    without = {name: value for name, value in DETECTIONS[1].items() if name != key}
    with pytest.raises(DataError, match=f"^D.json: entry 1 has no '{key}'$"):
        tabulate_detections([DETECTIONS[0], without], tabulate_ground_truth(GROUND_TRUTH), source="D.json")


@pytest.mark.parametrize("entry", [None, 5, "text", [1, 2]])
def test_an_entry_that_is_not_an_object_is_named(entry):
    with pytest.raises(DataError, match=r"entry 0 is .*, not an object"):
        tabulate_detections([entry], tabulate_ground_truth(GROUND_TRUTH))


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_ground_truth_without_a_part_is_not_coco(part):
    without = {name: value for name, value in GROUND_TRUTH.items() if name != part}
    with pytest.raises(DataError, match=f"the list '{part}' is missing"):
        tabulate_ground_truth(without)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 1}, r"annotations: entry 1 has image_id 1, which is not in its images"),
        ({"category_id": 1}, r"annotations: entry 1 has category_id 1, which is not in its categories"),
        ({"area": NOT_A_NUMBER}, "annotations: entry 1 has area nan"),
        ({"bbox": []}, r"annotations: entry 1 has bbox \[\]"),
    ],
)
def test_a_faulty_annotation_is_named(change, message):
    annotations = [GROUND_TRUTH["annotations"][0], GROUND_TRUTH["annotations"][1] | change]
    with pytest.raises(DataError, match=message):
        tabulate_ground_truth(GROUND_TRUTH | {"annotations": annotations})


def test_ids_must_be_integers():
    with pytest.raises(DataError, match="images: entry 0 has id 'a'; ids must be integers"):
        tabulate_ground_truth(GROUND_TRUTH | {"images": [{"id": "a"}]})


@settings(deadline=None)
@given(key=st.sampled_from(["image_id", "category_id", "bbox", "score"]), value=json_values)
def test_any_value_in_a_detection_is_a_table_or_a_data_error(key, value):
    table = tabulate_ground_truth(GROUND_TRUTH)
    try:
        found = tabulate_detections([DETECTIONS[0], DETECTIONS[1] | {key: value}], table)
    except DataError:
        return
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()


@settings(deadline=None)
@given(
    place=st.sampled_from([(part, key) for part in GROUND_TRUTH for key in (*GROUND_TRUTH[part][0], None)]),
    value=json_values,
)
def test_any_value_in_ground_truth_is_a_table_or_a_data_error(place, value):
    ground_truth = copy.deepcopy(GROUND_TRUTH)
    part, key = place
    if key is None:
        ground_truth[part] = value
    else:
        ground_truth[part][0][key] = value
    try:
        table = tabulate_ground_truth(ground_truth)
    except DataError:
        return
    assert np.isfinite(table.boxes).all()
    assert np.isfinite(table.areas).all()


def test_names_that_categories_share_are_told_apart_whatever_the_others_are_called():
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}, {"id": 3, "name": "a (id 1)"}],
        "annotations": [],
    }
    names = tabulate_ground_truth(truth).category_names
    assert len(set(names)) == 3
    assert names[1] == "a (id 2)"


@pytest.mark.parametrize("flag", ["0", 2, None, [1]])
def test_a_crowd_flag_is_0_or_1(flag):
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": flag}],
    }
    with pytest.raises(DataError, match=r"entry 0 has iscrowd .*, not 0 or 1"):
        tabulate_ground_truth(truth)
