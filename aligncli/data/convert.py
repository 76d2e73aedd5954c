"""Other annotation formats as COCO folders: `aligncli data convert`.

YOLO: `data.yaml` (or `classes.txt`) beside images/ and labels/, a text file an image with "class cx cy w h" lines in
shares of the image; polygons become their boxes, key points are left out. Pascal VOC: Annotations/*.xml, JPEGImages/,
ImageSets/Main/*.txt; its boxes count pixels from 1 with both ends inside. A source without splits is split by a seed.

Images are read from the source's own folders and copied or hard-linked below the new one; the source stays as it is.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligncli.data.dataset import Split
from aligncli.data.images import open_image
from aligncli.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Box:
    """One object: x, y, width, height in pixels of the upright image. An ignored one becomes a crowd region."""

    name: str
    xywh: tuple[float, float, float, float]
    ignored: bool = False


@dataclass(frozen=True)
class Labelled:
    """One image of a source. `file_name` is its place below the new images folder."""

    path: Path
    file_name: str
    read: Callable[[int, int], list[Box]]  # from the upright image's width and height
    split: Split | None = None


@dataclass(frozen=True)
class Source:
    """All images of a source, and its classes in their order; empty where the annotations tell."""

    images: list[Labelled]
    classes: tuple[str, ...] = field(default=())


def convert(
    source: Source,
    images: Path,
    *,
    val_share: float = 0.2,
    seed: int = 0,
    link: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[Split, dict[str, Any]]:
    """Bring the images into the new folder `images`; returns the annotations of both splits in COCO's format.

    `val_share` of the images whose source does not say are put aside, the same ones for the same `seed`; with `link`
    files are hard links, not copies. Raises DataError for an image or a label file that cannot be read.
    """
    splits = assign_splits([image.split for image in source.images], val_share=val_share, seed=seed)
    documents: dict[Split, dict[str, Any]] = {name: {"images": [], "annotations": []} for name in ("train", "val")}
    classes = list(source.classes)
    for number, (labelled, split) in enumerate(zip(source.images, splits, strict=True)):
        progress(number, len(source.images))
        image = open_image(labelled.path)
        _add_image(documents[split], labelled, image.width, image.height, image_id=number + 1, classes=classes)
        _bring(labelled.path, images / labelled.file_name, link=link)
    progress(len(source.images), len(source.images))
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {split: {**document, "categories": categories} for split, document in documents.items()}


def split_document(document: dict[str, Any], *, val_share: float, seed: int) -> dict[Split, dict[str, Any]]:
    """One sound document in COCO format as two, images drawn from `seed`; all other keys go to both."""
    splits = assign_splits([None] * len(document["images"]), val_share=val_share, seed=seed)
    split_of = {image["id"]: split for image, split in zip(document["images"], splits, strict=True)}
    return {
        name: {
            **document,
            "images": [image for image in document["images"] if split_of[image["id"]] == name],
            "annotations": [record for record in document["annotations"] if split_of[record["image_id"]] == name],
        }
        for name in ("train", "val")
    }


def assign_splits(known: Sequence[Split | None], *, val_share: float, seed: int) -> list[Split]:
    """The known split of each image, else one drawn from `seed`. Raises DataError where a split stays empty."""
    undecided = [row for row, split in enumerate(known) if split is None]
    drawn = set(random.Random(seed).sample(undecided, round(val_share * len(undecided))))
    splits: list[Split] = [split or ("val" if row in drawn else "train") for row, split in enumerate(known)]
    for name in ("train", "val"):
        if name not in splits:
            raise DataError(f"the {name} split of {len(known)} images is empty: change --val-share")
    return splits


def _add_image(
    document: dict[str, Any], labelled: Labelled, width: int, height: int, *, image_id: int, classes: list[str]
) -> None:
    """Its record and those of its boxes, cut at the border; boxes without area there are left out."""
    document["images"].append({"id": image_id, "file_name": labelled.file_name, "width": width, "height": height})
    for box in labelled.read(width, height):
        x, y, w, h = box.xywh
        left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
        if right <= left or bottom <= top:
            continue
        if box.name not in classes:
            classes.append(box.name)
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1,
                "image_id": image_id,
                "category_id": classes.index(box.name) + 1,
                "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
                "area": round((right - left) * (bottom - top), 3),
                "iscrowd": int(box.ignored),
            }
        )


def _bring(source: Path, target: Path, *, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        os.link(source.resolve(), target)
    else:
        shutil.copyfile(source, target)


def image_files(folder: Path) -> Iterator[Path]:
    """Images below a folder in a fixed order. Raises DataError where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"no image ({', '.join(IMAGE_SUFFIXES)}) below {folder}")
    yield from found
