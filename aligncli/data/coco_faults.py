"""What can be wrong with a document in COCO instance format, found without touching images.

One list of rules for both readers: `CocoDataset` refuses a file with a fatal fault, `check_folder` lists them
all. Not faults: annotations without id, area or iscrowd (ids are re-indexed, area is w * h, iscrowd is 0),
an annotation id 0, gaps between category ids, images without annotations.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from aligncli.data.images import file_name_fault, has_control_characters
from aligncli.errors import DataError

_SHOWN_CHARACTERS = 80
_MAX_ID = 2**63 - 1
_MAX_PIXELS_A_SIDE = 10**6
_MAX_COORDINATE = 1e9
BORDER_TOLERANCE = 1.0  # pixels: annotation tools round, and training clips boxes to the image anyway


@dataclass(frozen=True)
class Fault:
    """One fault. `kind` is the same text for all of its kind; `detail` says more about this one."""

    where: str  # path in the document, for example annotations[3].bbox
    kind: str
    detail: str = ""
    fatal: bool = True  # nothing can be done with the document; else training works around it

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


def read_document(path: Path, *, masks: bool = False) -> dict[str, Any]:
    """Parse an annotation file; without `masks`, segmentations are dropped while it is read: they are most of it.

    Raises DataError if it is missing, no JSON or no object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=None if masks else _without_mask)
    except OSError as error:
        raise DataError(f"annotation file {path}: {error.strerror}") from error
    except RecursionError as error:
        raise DataError(f"annotation file {path}: nested too deeply to be COCO annotations") from error
    except ValueError as error:  # not JSON, not UTF-8, or a number of more than 4300 digits
        raise DataError(f"annotation file {path}: not valid JSON, {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"annotation file {path}: expected an object with images, annotations, categories")
    return document


def _without_mask(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)
    return record


def find_faults(document: dict[str, Any], *, annotated: bool = True) -> Iterator[Fault]:
    """Every fault of a document, in its order; of a list of images alone if not `annotated`.

    Never raises, whatever JSON holds.
    """
    sound = set()
    for key in ("categories", "images", "annotations") if annotated else ("categories", "images"):
        list_faults = list(_list_faults(document, key))
        yield from list_faults
        if not list_faults:
            sound.add(key)
    if "categories" in sound:
        yield from _category_faults(document["categories"])
    if "images" in sound:
        yield from _image_faults(document["images"])
    if len(sound) == 3:
        yield from _annotation_faults(document)


def _list_faults(document: dict[str, Any], key: str) -> Iterator[Fault]:
    records = document.get(key)
    if not isinstance(records, list):
        yield Fault(key, "must be a list", _show(records) if key in document else "missing")
    elif not records:
        yield Fault(key, "is empty")
    else:
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                yield Fault(f"{key}[{row}]", "must be an object", _show(record))


def _category_faults(records: list[dict[str, Any]]) -> Iterator[Fault]:
    ids: set[int] = set()
    names: set[str] = set()
    for row, record in enumerate(records):
        where = f"categories[{row}]"
        yield from _id_faults(record, where, ids)
        name = record.get("name")
        if not isinstance(name, str) or not name.strip() or has_control_characters(name):
            yield Fault(f"{where}.name", "must be text without control characters", _show(name))
        elif name in names:
            yield Fault(f"{where}.name", "is used twice", repr(name))
        else:
            names.add(name)


def _image_faults(records: list[dict[str, Any]]) -> Iterator[Fault]:
    ids: set[int] = set()
    for row, record in enumerate(records):
        where = f"images[{row}]"
        yield from _id_faults(record, where, ids)
        name = record.get("file_name")
        if not isinstance(name, str):
            yield Fault(f"{where}.file_name", "must be text", _show(name))
        elif reason := file_name_fault(name):
            yield Fault(f"{where}.file_name", "is refused", f"{_show(name)}: {reason}")
        for side in ("width", "height"):
            if not (is_integer(record.get(side)) and 0 < record[side] <= _MAX_PIXELS_A_SIDE):
                yield Fault(f"{where}.{side}", "must be a positive integer", _show(record.get(side)))


def _id_faults(record: dict[str, Any], where: str, seen: set[int]) -> Iterator[Fault]:
    if not is_integer(record.get("id")):
        yield Fault(f"{where}.id", "must be an integer", _show(record.get("id")))
    elif record["id"] in seen:
        yield Fault(f"{where}.id", "is used twice", str(record["id"]))
    else:
        seen.add(record["id"])


def _annotation_faults(document: dict[str, Any]) -> Iterator[Fault]:
    images = {image["id"]: image for image in document["images"] if is_integer(image.get("id"))}
    categories = {record["id"] for record in document["categories"] if is_integer(record.get("id"))}
    ids: set[int] = set()
    for row, record in enumerate(document["annotations"]):
        where = f"annotations[{row}]"
        identity = record.get("id")
        if identity is not None and not is_integer(identity):
            yield Fault(f"{where}.id", "must be an integer", _show(identity), fatal=False)
        elif identity in ids:
            yield Fault(f"{where}.id", "is used twice", str(identity), fatal=False)
        elif identity is not None:
            ids.add(identity)
        for key, known in (("image_id", images), ("category_id", categories)):
            if not is_integer(record.get(key)) or record[key] not in known:
                yield Fault(f"{where}.{key}", "is not the id of a listed one", _show(record.get(key)))
        if record.get("iscrowd", 0) not in (0, 1):
            yield Fault(f"{where}.iscrowd", "must be 0 or 1", _show(record["iscrowd"]))
        area = record.get("area", 0)
        if not (is_number(area) and area >= 0):
            yield Fault(f"{where}.area", "must be a finite number, 0 or more", _show(area))
        image = images.get(record["image_id"]) if is_integer(record.get("image_id")) else None
        fault = _box_fault(record.get("bbox"), image)
        if fault is not None:
            kind, fatal = fault
            owner = f"annotation id {_show(identity)}, image id {_show(record.get('image_id'))}"
            yield Fault(f"{where}.bbox", kind, f"{owner}: {_show(record.get('bbox'))}", fatal)


def _box_fault(box: object, image: dict[str, Any] | None) -> tuple[str, bool] | None:
    """(kind, fatal) of what is wrong with an xywh box, if anything."""
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        return "must be four finite numbers x, y, width, height", True
    x, y, width, height = box
    if width < 0 or height < 0:
        return "has a negative side", True
    if width == 0 or height == 0:
        return "has no area and is left out of training", False
    if image is None or not (is_integer(image.get("width")) and is_integer(image.get("height"))):
        return None
    if x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0:
        return "lies outside its image and is left out of training", False
    beyond = max(-x, -y, x + width - image["width"], y + height - image["height"])
    return ("reaches over the border of its image", False) if beyond > BORDER_TOLERANCE else None


def _show(value: object) -> str:
    """A value in one short line, whatever it is; control characters come out escaped."""
    text = reprlib.repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def is_integer(value: object) -> TypeGuard[int]:
    """A JSON integer that fits 64 bits; `true` is not one."""
    return type(value) is int and -_MAX_ID <= value <= _MAX_ID


def is_number(value: object) -> TypeGuard[float]:
    """A JSON number of a sane size. NaN and Infinity, which Python's JSON reader accepts, are not."""
    return type(value) in (int, float) and -_MAX_COORDINATE < value < _MAX_COORDINATE  # type: ignore[operator]
