"""Runs compared and their errors told apart, on detections made to have the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligncli.build import build_dataset
from aligncli.catalog import load_recipe
from aligncli.engine.detections import compare_runs, find_errors
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import CheckpointError, DataError

RECIPE = load_recipe("aligndet_small").changed({"data.num_train": 4, "data.num_val": 40})


def run_with(folder: Path, change, *, recipe=RECIPE) -> Path:
    """A run folder whose detections are the ground truth's boxes, each changed by `change` (None: left out)."""
    truth = build_dataset(recipe, "val").ground_truth()
    found = []
    for record in truth["annotations"]:
        detection = {key: record[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        detection = change(detection)
        found += [detection] if detection is not None else []
    folder.mkdir()
    run = RunFolder(folder)
    run.recipe_path.write_text(json.dumps(recipe.model_dump(mode="json")))
    run.results_path.write_text(json.dumps(found))
    return folder


def perfect(detection):
    return detection


def every_third(change):
    """`change` for every third detection."""
    count = 0

    def changed(detection):
        nonlocal count
        count += 1
        return change(detection) if count % 3 == 0 else detection

    return changed


def another_class(detection):
    return detection | {"category_id": detection["category_id"] % 6 + 1}


def shifted(detection):
    x, y, w, h = detection["bbox"]
    return detection | {"bbox": [x + 0.4 * w, y, w, h]}  # IoU .43


def test_a_perfect_run_has_nothing_to_repair(tmp_path):
    for item in find_errors(run_with(tmp_path / "run", perfect)):
        if item.num_objects:
            assert item.average_precision == pytest.approx(100.0)
            assert all(gain == pytest.approx(0.0) for gain in item.gains.values())


@pytest.mark.parametrize(
    ("change", "kind"), [(another_class, "classification"), (shifted, "localisation"), (lambda _: None, "missed")]
)
def test_the_kind_of_error_is_found(tmp_path, change, kind):
    overall, stricter, *_ = find_errors(run_with(tmp_path / "run", every_third(change)))
    assert (overall.part, overall.iou, stricter.iou) == ("all", 0.5, 0.75)
    assert overall.average_precision < 80
    assert max(overall.gains, key=overall.gains.__getitem__) == kind
    assert overall.gains[kind] > 10


def test_parts_by_size_and_by_aspect_add_up_to_all_objects(tmp_path):
    told = []
    found = {
        item.part: item.num_objects
        for item in find_errors(run_with(tmp_path / "run", perfect), ious=(0.5,), progress=lambda *n: told.append(n))
    }
    assert found["small"] + found["medium"] + found["large"] == found["all"] > 40
    assert sum(count for part, count in found.items() if part.startswith("aspect")) == found["all"]
    assert told[0] == (0, 7)
    assert told[-1] == (7, 7)


def test_errors_of_one_part_do_not_count_in_another(tmp_path):
    def miss_the_small(detection):
        return None if detection["bbox"][2] * detection["bbox"][3] < 40**2 else detection

    found = {item.part: item for item in find_errors(run_with(tmp_path / "run", miss_the_small), ious=(0.5,))}
    assert found["small"].average_precision == 0.0
    assert found["medium"].average_precision == pytest.approx(100.0)


def test_the_bootstrap_tells_a_clear_difference_from_none(tmp_path):
    good, bad = run_with(tmp_path / "good", perfect), run_with(tmp_path / "bad", every_third(another_class))
    worse = compare_runs(good, bad, samples=100)
    assert worse.num_images == 40
    difference = worse.metrics["AP"]
    assert difference.first == pytest.approx(100.0)
    assert difference.delta == pytest.approx(difference.second - difference.first)
    assert difference.low <= difference.delta <= difference.high < 0
    assert all(second < first for first, second in worse.classes.values())
    same = compare_runs(good, good, samples=100).metrics["AP"]
    assert (same.delta, same.low, same.high) == (0.0, 0.0, 0.0)


def test_only_runs_on_the_same_images_can_be_compared(tmp_path):
    first = run_with(tmp_path / "first", perfect)
    other = run_with(tmp_path / "other", perfect, recipe=RECIPE.changed({"data.val_seed": 444}))
    with pytest.raises(DataError, match="were evaluated on different images"):
        compare_runs(first, other)
    (first / "results.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no results.json"):
        find_errors(first)
