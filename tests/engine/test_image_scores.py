"""Which detections find objects, image by image."""

from __future__ import annotations

from typing import Any

import pytest

from aligncli.engine.image_scores import ImageScore, score_images


def document(*objects: tuple[int, int, list[float], int], images: tuple[int, ...] = (5, 3)) -> dict[str, Any]:
    """Objects are (image id, category id, xywh, crowd)."""
    return {
        "images": [{"id": image} for image in images],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
            for number, (image, category, box, crowd) in enumerate(objects, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def detection(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


TRUTH = document((5, 1, [0, 0, 10, 10], 0), (5, 2, [50, 50, 10, 10], 0), (3, 1, [0, 0, 10, 10], 0))


def test_images_keep_the_order_of_the_data_set_and_count_what_was_found() -> None:
    found = score_images(
        TRUTH,
        [
            detection(5, 1, [1, 0, 10, 10], 0.9),
            detection(5, 1, [0, 0, 10, 10], 0.8),  # the object is taken
            detection(3, 2, [0, 0, 10, 10], 0.7),  # another class
            detection(3, 1, [0, 0, 10, 10], 0.6),
            detection(3, 1, [30, 30, 10, 10], 0.1),  # below the best threshold
        ],
    )
    assert found.images == (ImageScore(0, 5, 2, 1, 1), ImageScore(1, 3, 1, 1, 1))
    assert found.threshold == 0.6
    assert found.f1 == pytest.approx(2 * 2 / (4 + 3))
    assert found.images[0].f1 == pytest.approx(2 / 4)


def test_the_threshold_is_where_f1_is_highest_and_equal_scores_count_together() -> None:
    good = [detection(5, 1, [0, 0, 10, 10], 0.5), detection(3, 1, [0, 0, 10, 10], 0.5)]
    bad = [detection(5, 1, [70, 70, 5, 5], 0.5), detection(5, 1, [80, 70, 5, 5], 0.2)]
    assert score_images(TRUTH, good + bad).threshold == 0.5
    assert score_images(TRUTH, good + bad).f1 == pytest.approx(4 / 6)


def test_what_lies_on_a_crowd_counts_nowhere() -> None:
    truth = document((5, 1, [0, 0, 100, 100], 1), (5, 1, [200, 0, 10, 10], 0))
    found = score_images(truth, [detection(5, 1, [10, 10, 5, 5], 0.9), detection(5, 1, [200, 0, 10, 10], 0.8)])
    assert found.images[0] == ImageScore(0, 5, 1, 1, 0)
    assert found.f1 == 1.0


def test_nothing_found_draws_nothing() -> None:
    for detections in ([], [detection(5, 1, [70, 70, 5, 5], 0.9)], [detection(5, 1, [70, 70, 5, 5], 1.0)]):
        found = score_images(TRUTH, detections)
        assert found.threshold == pytest.approx(1.0)
        assert found.f1 == 0.0
        assert not any(image.num_false for image in found.images)
        assert [image.f1 for image in found.images] == [0.0, 0.0]
    assert score_images(document(), []).images[0].f1 == 1.0  # nothing to find
