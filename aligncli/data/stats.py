"""Figures of a data set: `aligncli data stats`. They tell which anchor sizes and input sizes make sense."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from aligncli.data.dataset import DetectionDataset

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class DatasetStats:
    """Counts, and box shapes at QUANTILES. Shapes are those of boxes that are no crowd and have an area."""

    num_images: int
    num_boxes: int  # crowd regions included
    num_crowd: int
    num_images_without_boxes: int
    boxes_per_class: dict[str, int]  # crowd regions left out; every class, in label order
    box_sizes: tuple[float, ...]  # sqrt(w h), pixels of the original image; NaN without boxes
    box_aspects: tuple[float, ...]  # w / h
    image_heights: tuple[int, int]  # smallest, largest
    image_widths: tuple[int, int]


def dataset_stats(dataset: DetectionDataset) -> DatasetStats:
    """Count images and boxes and measure box shapes; reads no image."""
    truth = dataset.ground_truth()
    annotations = truth["annotations"]
    objects = [record for record in annotations if not record["iscrowd"]]
    per_id = Counter(record["category_id"] for record in objects)
    sides = np.array([record["bbox"][2:] for record in objects], np.float64).reshape(-1, 2)
    width, height = sides[(sides > 0).all(axis=1)].T
    heights, widths = dataset.sizes.T
    return DatasetStats(
        num_images=len(dataset),
        num_boxes=len(annotations),
        num_crowd=len(annotations) - len(objects),
        num_images_without_boxes=len(dataset) - len({record["image_id"] for record in annotations}),
        boxes_per_class={
            name: per_id[coco_id] for name, coco_id in zip(dataset.categories.names, dataset.categories.coco_ids)
        },
        box_sizes=_quantiles(np.sqrt(width * height)),
        box_aspects=_quantiles(width / height),
        image_heights=(int(heights.min()), int(heights.max())),
        image_widths=(int(widths.min()), int(widths.max())),
    )


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    if not len(values):
        return (float("nan"),) * len(QUANTILES)
    return tuple(np.quantile(values, QUANTILES).tolist())
