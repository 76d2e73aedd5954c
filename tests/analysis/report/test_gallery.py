"""Which images a report shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aligncli.analysis.report.gallery import boxes_of, describe, pick_images
from aligncli.engine.image_scores import ImageScore, ImageScores

IMAGE_SCORES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=40).map(
    lambda rows: ImageScores(
        0.5,
        0.5,
        tuple(
            ImageScore(index, 100 - index, objects, min(found, objects), false)
            for index, (objects, found, false) in enumerate(rows)
        ),
    )
)


@given(IMAGE_SCORES)
def test_best_worst_and_random_are_what_they_say_and_none_comes_twice(scores: ImageScores) -> None:
    picked = pick_images(scores)
    shown = [image for images in picked.values() for image in images]
    assert len({image.index for image in shown}) == len(shown) == min(12, len(scores.images))
    others = [image.f1 for image in scores.images if image not in shown]
    best, worst = picked.get("Best", []), picked.get("Worst", [])
    if others:
        assert min(image.f1 for image in best) >= max(others)
        assert max(image.f1 for image in worst) <= min(others)
    assert pick_images(scores) == picked


def test_of_equally_good_images_the_fuller_come_first() -> None:
    images = tuple(ImageScore(index, index, objects, objects, 0) for index, objects in enumerate((1, 4, 2, 3)))
    assert [image.num_objects for image in pick_images(ImageScores(0.5, 1.0, images), each=2)["Best"]] == [4, 3]


def test_boxes_are_corners_and_weak_detections_are_left_out() -> None:
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    records = [
        {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1], "score": 0.4},
    ]
    (box,) = boxes_of(records, categories, threshold=0.5)[1]
    assert (box.corners, box.name, box.label, box.score) == ((1, 2, 4, 6), "dog", 1, 0.5)
    crowd = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1], "iscrowd": 1}
    assert describe([box, *boxes_of([crowd], categories)[1], box]) == "2 dog, 1 cat (crowd)"
    assert describe([]) == "nothing"
