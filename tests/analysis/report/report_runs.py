"""Run folders made without training: detections are the ground truth's boxes, changed as a test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from aligncli.build import build_dataset
from aligncli.catalog import load_recipe, on_folder
from aligncli.config import Recipe
from aligncli.engine.metrics import compute_metrics
from aligncli.engine.run_folder import RunFolder, write_json
from aligncli.plain import only_finite

SHAPES = load_recipe("aligndet_small").changed({"data.num_train": 4, "data.num_val": 20, "schedule.iterations": 10})

Detection = dict[str, Any]
Change = Callable[[Detection, int], Detection | None]


def every_third_shifted(detection: Detection, number: int) -> Detection:
    """Every third box stands half its width aside; scores fall from detection to detection."""
    x, y, width, height = detection["bbox"]
    moved = {"bbox": [x + 0.5 * width, y, width, height]} if number % 3 == 0 else {}
    return detection | moved | {"score": 0.9 - 0.001 * number}


def make_run(folder: Path, recipe: Recipe = SHAPES, change: Change = every_third_shifted) -> Path:
    """An evaluated run folder without weights."""
    dataset = build_dataset(recipe, "val")
    truth = dataset.ground_truth()
    detections = []
    for number, record in enumerate(truth["annotations"]):
        found = {key: record[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        changed = change(found, number)
        detections += [] if changed is None else [changed]
    run = RunFolder(folder)
    run.create(recipe, dataset.categories, device="cpu")
    metrics = only_finite(compute_metrics(truth, detections).values)
    for iteration in range(1, 11):
        run.append_metrics({"iteration": iteration, "lr": 0.01, "loss": 2 / iteration, "box": 1.0, "class": 1.0})
    run.append_metrics({"iteration": 10, "evaluation": metrics})
    write_json(run.results_path, detections)
    write_json(run.evaluation_path, {"metrics": metrics})
    return folder


def make_photos(root: Path, *, classes: Sequence[str], file_name: str) -> Recipe:
    """Six images of 64 x 48 pixels with a box each, named `file_name` with its number; the recipe that uses them."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    names = [file_name.format(number) for number in range(6)]
    for number, name in enumerate(names):
        Image.new("RGB", (64, 48), (40 * number, 90, 200)).save(root / "images" / name, format="PNG")
    document = {
        "images": [{"id": number, "file_name": name, "width": 64, "height": 48} for number, name in enumerate(names)],
        "annotations": [
            {"id": number + 1, "image_id": number, "category_id": number % len(classes) + 1, "bbox": [8, 8, 24, 24]}
            for number in range(6)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
    }
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return on_folder(load_recipe("photo"), root)
