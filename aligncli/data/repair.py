"""A sound copy of an annotation file: `aligncli data check --fix`.

Only what cannot be used is left out, and only what is wrong is changed: images that cannot be read go with their
annotations, and so do those whose boxes are for another size than the file's, unless it was only resized: boxes and
masks are scaled then. Boxes are cut at the border of their image and go where nothing is left of them, ids that are
used twice are given anew. Everything else, unknown keys too, stays as it is.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import count
from typing import Any

from aligncli.data.coco_faults import BORDER_TOLERANCE, find_faults, is_integer, is_number
from aligncli.data.stated_size import Scale, Size, find_scale, scale_annotation
from aligncli.errors import DataError

MIN_SIDE = 1e-6  # pixels: what is left of a box that only touches its image is none


def repair(document: Mapping[str, Any], sizes: Mapping[int, Size | None]) -> tuple[dict[str, Any], Counter[str]]:
    """A copy without faults, and how often each kind of repair was made.

    Args:
        sizes: of every row of "images" the size of its file, EXIF-upright; None where it cannot be used.

    Raises DataError where no repair is possible: without sound categories, or when no image is left.
    """
    done: Counter[str] = Counter()
    categories = [copy.deepcopy(record) for record in _records(document, "categories")]
    records = _records(document, "annotations")
    annotated = {record["image_id"] for record in records if is_integer(record.get("image_id"))}
    images, scales = _repair_images(_records(document, "images"), sizes, annotated, done)
    known = {record["id"]: record for record in images}
    category_ids = {record["id"] for record in categories if is_integer(record.get("id"))}
    annotations = _repair_annotations(_rescale(records, scales, done), known, category_ids, done)
    repaired = copy.deepcopy({key: value for key, value in document.items() if key not in _LISTS})
    repaired |= {"categories": categories, "images": images, "annotations": annotations}
    left = next(find_faults(repaired), None)
    if left is not None:
        raise DataError("; ".join([f"cannot be repaired: {left}", *describe(done)]))
    return repaired, done


_LISTS = ("categories", "images", "annotations")


def _records(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    records = document.get(key)
    return [record if isinstance(record, dict) else {} for record in records] if isinstance(records, list) else []


def _repair_images(
    records: Sequence[dict[str, Any]], sizes: Mapping[int, Size | None], annotated: Set[int], done: Counter[str]
) -> tuple[list[dict[str, Any]], dict[int, Scale]]:
    """Images with a usable file, an id of their own and the size of their file; by id, how annotations are scaled.

    Where nothing is annotated, nothing can be in the wrong place: any stated size is corrected.
    """
    kept: list[dict[str, Any]] = []
    ids: set[int] = set()
    scales: dict[int, Scale] = {}
    for row, record in enumerate(records):
        size, identity = sizes.get(row), record.get("id")
        if size is None:
            done["images left out: their file cannot be used"] += 1
            continue
        if not is_integer(identity) or identity in ids:
            done["images left out: no id of their own"] += 1
            continue
        ids.add(identity)
        stated = _stated_size(record, size)
        scale = find_scale(found=size, stated=stated) if stated != size and identity in annotated else (1.0, 1.0)
        if scale is None:
            done["images left out: annotated at another size, and the file is not that image resized"] += 1
            continue
        if scale != (1.0, 1.0):
            done["image sizes corrected and their annotations scaled"] += 1
            scales[identity] = scale
        elif (record.get("height"), record.get("width")) != size:
            done["image sizes corrected"] += 1
        kept.append({**copy.deepcopy(record), "height": size[0], "width": size[1]})
    return kept, scales


def _stated_size(record: Mapping[str, Any], size: Size) -> tuple[float, float]:
    """(height, width) of a record. A side that is not stated contradicts nothing: it is the file's."""
    height, width = (
        side if is_number(side := record.get(key)) and side > 0 else own
        for key, own in zip(("height", "width"), size, strict=True)
    )
    return height, width


def _rescale(
    records: Sequence[dict[str, Any]], scales: Mapping[int, Scale], done: Counter[str]
) -> list[dict[str, Any]]:
    """Annotations with those of resized images scaled."""
    rescaled = []
    for record in records:
        image_id = record.get("image_id")
        if is_integer(image_id) and image_id in scales:
            scaled = scale_annotation(record, scales[image_id])
            if "segmentation" in record and "segmentation" not in scaled:
                done["masks left out: no polygons that could be scaled"] += 1
            rescaled.append(scaled)
        else:
            rescaled.append(record)
    return rescaled


def _repair_annotations(
    records: Sequence[dict[str, Any]],
    images: Mapping[int, Mapping[str, Any]],
    category_ids: set[int],
    done: Counter[str],
) -> list[dict[str, Any]]:
    """Annotations of kept images and listed categories whose boxes have an area there."""
    kept: list[dict[str, Any]] = []
    ids: set[int] = set()
    given = (record["id"] for record in records if is_integer(record.get("id")))
    fresh = count(1 + max(given, default=0))
    for record in records:
        image_id, category_id = record.get("image_id"), record.get("category_id")
        image = images.get(image_id) if is_integer(image_id) else None
        if image is None:
            done["annotations left out: their image is not there"] += 1
        elif not is_integer(category_id) or category_id not in category_ids:
            done["annotations left out: their category is not listed"] += 1
        elif (box := _repair_box(record.get("bbox"), image)) is None:
            done["annotations left out: their box has no area in the image"] += 1
        else:
            kept.append(_repair_annotation(copy.deepcopy(record), box, ids, fresh, done))
    return kept


def _repair_annotation(
    record: dict[str, Any], box: list[float], ids: set[int], fresh: Iterator[int], done: Counter[str]
) -> dict[str, Any]:
    """Box, area, crowd flag and id of one annotation."""
    if box != record["bbox"]:
        done["boxes cut at the border of their image"] += 1
        record["bbox"] = box
        if "segmentation" not in record:  # a mask's area is another one
            record.pop("area", None)
    if "area" in record and not (is_number(record["area"]) and record["area"] >= 0):
        done["areas replaced by those of the boxes"] += 1
        record["area"] = box[2] * box[3]
    if record.get("iscrowd", 0) not in (0, 1):
        done["crowd flags set to 0"] += 1
        record["iscrowd"] = 0
    if "id" in record and (not is_integer(record["id"]) or record["id"] in ids):
        done["annotation ids given anew"] += 1
        record["id"] = next(fresh)
    if "id" in record:
        ids.add(record["id"])
    return record


def _repair_box(box: object, image: Mapping[str, Any]) -> list[float] | None:
    """The part of an xywh box inside the image; the very same box where that is no fault. None: nothing is left."""
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        return None
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    if width <= 0 or height <= 0 or right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        return None
    beyond = max(left - x, top - y, x + width - right, y + height - bottom)
    return list(box) if beyond <= BORDER_TOLERANCE else [left, top, right - left, bottom - top]


def describe(done: Counter[str]) -> list[str]:
    """One line a kind of repair."""
    return [f"{number:,} {kind}" for kind, number in done.items()]
