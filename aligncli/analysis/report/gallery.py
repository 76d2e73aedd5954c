"""Which validation images a report shows, by a rule that it states, and what stands on them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from aligncli.analysis.pictures import class_colours, draw_boxes
from aligncli.data.dataset import DetectionDataset
from aligncli.engine.image_scores import ImageScore, ImageScores

EACH = 4  # images of a sort: a dozen in all
SEED = 0
EMPHASIS = 1.8  # of lines and tags: pictures stand in half of half a page
RULE = (
    "Detections are drawn from the score at which F1 over all images, 2 found / (objects + detections) at IoU .5, is "
    "highest. Images are ranked by their own F1: the best and the worst four, of equal ones those with more objects, "
    "and four more drawn by chance (seed 0)."
)


@dataclass(frozen=True)
class Box:
    """One box, xyxy in pixels of the image. `score` is None for ground truth."""

    corners: tuple[float, float, float, float]
    name: str
    label: int
    score: float | None = None


def pick_images(scores: ImageScores, *, each: int = EACH, seed: int = SEED) -> dict[str, list[ImageScore]]:
    """Up to `each` images of every sort, by its title; none twice. Where there are few, the best come first."""
    ranking = sorted(scores.images, key=lambda image: (-image.f1, -image.num_objects, image.index))
    best = ranking[:each]
    rest = ranking[each:]
    worst = sorted(rest, key=lambda image: (image.f1, -image.num_objects, image.index))[:each]
    rest = sorted((image for image in rest if image not in worst), key=lambda image: image.index)
    chance = random.Random(seed).sample(rest, min(each, len(rest)))
    picked = {"Best": best, "Worst": worst, "Random": chance}
    return {title: images for title, images in picked.items() if images}


def boxes_of(
    records: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]], *, threshold: float = 0.0
) -> dict[int, list[Box]]:
    """Annotations, or detections from `threshold` on, by image id; `categories` are the COCO document's, by label."""
    labels = {record["id"]: (label, record["name"]) for label, record in enumerate(categories)}
    boxes: dict[int, list[Box]] = {}
    for record in records:
        score = record.get("score")
        if score is not None and score < threshold:
            continue
        x, y, width, height = record["bbox"]
        label, name = labels[record["category_id"]]
        name = f"{name} (crowd)" if record.get("iscrowd") else name
        boxes.setdefault(record["image_id"], []).append(Box((x, y, x + width, y + height), name, label, score))
    return boxes


def open_image(dataset: DetectionDataset, image: ImageScore) -> Image.Image:
    """The upright RGB image of the data set at its own size. Raises DataError where it cannot be read."""
    pixels, target = dataset[image.index]
    (height, width), (scale_x, scale_y) = target["size"], target["scale"]
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), box=(0, 0, width * scale_x, height * scale_y))  # it was decoded reduced


def draw(image: Image.Image, boxes: Sequence[Box], *, num_classes: int) -> Image.Image:
    """The image with boxes, each class in its own colour."""
    colours = class_colours(num_classes)
    scores = [box.score for box in boxes if box.score is not None]
    return draw_boxes(
        image,
        [box.corners for box in boxes],
        [box.name for box in boxes],
        scores if len(scores) == len(boxes) else None,
        [colours[box.label] for box in boxes],
        emphasis=EMPHASIS,
    )


def describe(boxes: Sequence[Box]) -> str:
    """`3 circle, 1 star`; for who cannot see the picture."""
    names = [box.name for box in boxes]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"
