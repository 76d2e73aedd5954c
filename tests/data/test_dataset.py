import numpy as np
import pytest

from aligncli.data.dataset import BoxTable, Categories, require_same_categories
from aligncli.errors import DataError

CATEGORIES = Categories(("fish", "crab"), (3, 7))


def test_labels_follow_the_order_of_the_category_ids():
    records = [{"id": 7, "name": "crab"}, {"id": 3, "name": "fish"}]
    assert Categories.from_coco(records) == CATEGORIES


def test_categories_survive_json():
    assert Categories.from_json(CATEGORIES.to_json()) == CATEGORIES


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {"names": ["a"]},
        {"names": ["a"], "coco_ids": [1, 2]},
        {"names": ["a", "b"], "coco_ids": [1, 1]},
        {"names": ["a"], "coco_ids": ["1"]},
        {"names": ["a"], "coco_ids": [True]},
        {"names": "a", "coco_ids": [1]},
    ],
)
def test_damaged_categories_are_a_data_error(values):
    with pytest.raises(DataError, match="categories: expected as many"):
        Categories.from_json(values)


def test_annotation_ids_are_reindexed_from_one():
    table = BoxTable(
        offsets=np.array([0, 2, 2, 3]),
        boxes=np.array([[0, 0, 4, 5], [1, 1, 2, 2], [0.5, 0, 1, 1]]),
        labels=np.array([1, 0, 0]),
        crowd=np.array([False, True, False]),
        areas=np.array([20.0, 4.0, 0.5]),
    )
    records = table.to_coco([10, 20, 30], CATEGORIES)
    assert [record["id"] for record in records] == [1, 2, 3]
    assert [record["image_id"] for record in records] == [10, 10, 30]
    assert records[1] == {
        "id": 2,
        "image_id": 10,
        "category_id": 3,
        "bbox": [1, 1, 2, 2],
        "area": 4.0,
        "iscrowd": 1,
    }


def test_equal_categories_pass():
    require_same_categories(CATEGORIES, Categories(("fish", "crab"), (3, 7)), source="val.json")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Categories(("fish",), (3,)), "val.json: 1 categories, but 2 were expected"),
        (Categories(("fish", "star"), (3, 7)), "val.json: category id 7 'star' stands where id 7 'crab'"),
        (Categories(("fish", "crab"), (3, 8)), "val.json: category id 8 'crab' stands where id 7 'crab'"),
    ],
)
def test_the_first_difference_of_categories_is_named(other, message):
    with pytest.raises(DataError, match=message):
        require_same_categories(CATEGORIES, other, source="val.json")
