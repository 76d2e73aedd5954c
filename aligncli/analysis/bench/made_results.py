"""Ground truth and detections that no detector has made: COCO documents of any size, to measure evaluators on.

Some detections lie near an object, of its class and with higher scores, the others anywhere, so that every
branch of the matching is taken: hits at some thresholds, duplicates, wrong classes, crowds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

HEIGHT, WIDTH = 480, 640  # pixels, of all images
SIDES = (8.0, 400.0)  # pixels, log-uniform
CROWDS = 0.01  # of the objects
NEAR = 0.3  # of the detections
JITTER = 0.12  # of a near one's corner and size, in sizes of its object


@dataclass(frozen=True)
class ScoringCase:
    """How much is scored. num_objects: ground truths an image in the mean; detections are as many on every image."""

    num_images: int = 5000
    num_classes: int = 80
    num_detections: int = 100
    num_objects: int = 7

    def small(self) -> ScoringCase:
        """A few images, to load code with."""
        return replace(self, num_images=min(self.num_images, 20))


def make_results(case: ScoringCase) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth as a COCO document, and detections as COCO results; the same ones every time."""
    generator = np.random.default_rng(0)
    num_objects = case.num_images * case.num_objects
    images = np.sort(generator.integers(1, case.num_images + 1, num_objects))
    classes = generator.integers(1, case.num_classes + 1, num_objects)
    boxes = _boxes(num_objects, generator)
    crowd = generator.random(num_objects) < CROWDS
    document = {
        "images": [{"id": number, "width": WIDTH, "height": HEIGHT} for number in range(1, case.num_images + 1)],
        "categories": [{"id": label, "name": f"class {label}"} for label in range(1, case.num_classes + 1)],
        "annotations": [
            {"id": row, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": flag}
            for row, (image, label, box, flag) in enumerate(
                zip(images.tolist(), classes.tolist(), boxes.tolist(), crowd.astype(int).tolist()), start=1
            )
        ],
    }
    return document, _detections(case, images, classes, boxes, generator)


def _boxes(count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, 4) xywh pixels inside the image."""
    smallest, largest = np.log(SIDES)
    size = np.exp(generator.uniform(smallest, largest, (count, 2)))
    size = np.minimum(size, (WIDTH, HEIGHT))
    return np.concatenate([generator.random((count, 2)) * ((WIDTH, HEIGHT) - size), size], axis=1)


def _detections(
    case: ScoringCase, images: np.ndarray, classes: np.ndarray, boxes: np.ndarray, generator: np.random.Generator
) -> list[dict[str, Any]]:
    owners = np.repeat(np.arange(1, case.num_images + 1), case.num_detections)
    found, labels = _boxes(len(owners), generator), generator.integers(1, case.num_classes + 1, len(owners))
    scores = generator.random(len(owners)) * 0.6
    first, last = np.searchsorted(images, owners), np.searchsorted(images, owners, side="right")
    near = (generator.random(len(owners)) < NEAR) & (last > first)
    objects = (first + generator.random(len(owners)) * (last - first)).astype(int)[near]
    noise = generator.normal(scale=JITTER, size=(len(objects), 4))
    size = boxes[objects, 2:]
    found[near, :2] = boxes[objects, :2] + noise[:, :2] * size
    found[near, 2:] = size * np.exp(noise[:, 2:])
    labels[near] = classes[objects]
    scores[near] += 0.4 * np.exp(-4 * np.abs(noise).sum(1))
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, label, box, score in zip(owners.tolist(), labels.tolist(), found.tolist(), scores.tolist())
    ]
