"""COCO annotations and results as checked, re-indexed columns: the one input that both evaluators see.

Evaluators disagree with each other, or fall silent, on loose input: an annotation id of 0 counts a hit as
a miss, repeated ids hide a box, `area` may be absent, ids beyond 2**53 merge in a float. So ids become
ranks, annotation ids are not kept at all, areas are filled in, and what cannot be scored is a DataError.
Boxes are xywh in pixels of the original image.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligncli.errors import DataError

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class GroundTruthTable:
    """G annotated boxes. Ranks follow the sorted ids, which is the order that evaluators work in."""

    source: str  # how errors name it
    image_ranks: dict[int, int]  # image id -> 0..num_images - 1
    category_ranks: dict[int, int]  # category id -> 0..num_categories - 1
    category_names: tuple[str, ...]  # by rank; unique
    images: np.ndarray  # (G,) int64 rank
    categories: np.ndarray  # (G,) int64 rank
    boxes: np.ndarray  # (G, 4) float64
    areas: np.ndarray  # (G,) float64, of the mask where the file gives it
    crowd: np.ndarray  # (G,) bool


@dataclass(frozen=True)
class DetectionTable:
    """D scored boxes, in the order of the file, which decides between equal scores."""

    images: np.ndarray  # (D,) int64 rank
    categories: np.ndarray  # (D,) int64 rank
    boxes: np.ndarray  # (D, 4) float64
    scores: np.ndarray  # (D,) float64


def tabulate_ground_truth(ground_truth: Mapping[str, Any], *, source: str = "ground truth") -> GroundTruthTable:
    """Columns of a COCO dict {"images", "annotations", "categories"}, which is left as it is.

    `iscrowd` defaults to 0 and `area` to the box's; a field `ignore` is disregarded, as pycocotools does.
    Raises DataError, naming `source`, for missing parts, unknown ids and boxes that are not finite.
    """
    if not isinstance(ground_truth, Mapping):
        raise DataError(f"{source}: expected a COCO object with images, annotations and categories")
    for part in ("images", "annotations", "categories"):
        if not isinstance(ground_truth.get(part), list):
            raise DataError(f"{source}: the list {part!r} is missing, so this is not a COCO annotation file")

    categories = {
        category_id: str(category.get("name", category_id))
        for category_id, category in zip(
            _ids(ground_truth["categories"], f"{source}: categories"), ground_truth["categories"]
        )
    }
    image_ranks = _rank(_ids(ground_truth["images"], f"{source}: images"))
    category_ranks = _rank(categories)
    annotations, where = ground_truth["annotations"], f"{source}: annotations"
    boxes = _boxes(annotations, where)
    areas = [annotation.get("area") for annotation in annotations]
    own_areas = (boxes[:, 2] * boxes[:, 3]).tolist()
    areas = [own if area is None else area for area, own in zip(areas, own_areas)]
    return GroundTruthTable(
        source=source,
        image_ranks=image_ranks,
        category_ranks=category_ranks,
        category_names=_unique_names(categories),
        images=_look_up(annotations, "image_id", image_ranks, where, "its images"),
        categories=_look_up(annotations, "category_id", category_ranks, where, "its categories"),
        boxes=boxes,
        areas=_numbers(areas, "area", where),
        crowd=_flags(annotations, "iscrowd", where),
    )


def tabulate_detections(
    detections: Sequence[Mapping[str, Any]], ground_truth: GroundTruthTable, *, source: str = "detections"
) -> DetectionTable:
    """Columns of COCO bbox results {"image_id", "category_id", "bbox", "score"}; other keys are disregarded.

    Raises DataError, naming `source` and the entry, for a missing key, an id that the ground truth does
    not have, a box that is not four finite numbers, and a score that is not finite.
    """
    if not isinstance(detections, list):
        raise DataError(f"{source}: expected a list of detections, got {_kind(detections)}")
    owner = ground_truth.source
    return DetectionTable(
        images=_look_up(detections, "image_id", ground_truth.image_ranks, source, owner),
        categories=_look_up(detections, "category_id", ground_truth.category_ranks, source, owner),
        boxes=_boxes(detections, source),
        scores=_numbers(_column(detections, "score", source), "score", source),
    )


def _rank(ids: Mapping[int, Any] | Sequence[int]) -> dict[int, int]:
    return {value: rank for rank, value in enumerate(sorted(set(ids)))}


def _flags(entries: Sequence[Mapping[str, Any]], key: str, source: str) -> np.ndarray:
    """Where an entry lacks one it is 0. Raises DataError for what is neither 0 nor 1."""
    values = [entry.get(key, 0) for entry in entries]
    for index, value in enumerate(values):
        if value not in (0, 1):
            raise DataError(f"{source}: entry {index} has {key} {value!r}, not 0 or 1")
    return np.array(values, dtype=bool)


def _unique_names(categories: Mapping[int, str]) -> tuple[str, ...]:
    """Names by rank; a name that several categories share is told apart by the category's id."""
    names = dict(sorted(categories.items()))
    while True:  # such a name may be another category's own
        count = Counter(names.values())
        if len(count) == len(names):
            return tuple(names.values())
        names = {i: f"{name} (id {i})" if count[name] > 1 else name for i, name in names.items()}


def _column(entries: Sequence[Any], key: str, source: str) -> list[Any]:
    try:
        return [entry[key] for entry in entries]
    except (KeyError, TypeError, IndexError):
        index = _first(entries, lambda entry: not isinstance(entry, Mapping) or key not in entry)
        if not isinstance(entries[index], Mapping):
            raise DataError(f"{source}: entry {index} is {_kind(entries[index])}, not an object") from None
        raise DataError(f"{source}: entry {index} has no {key!r}") from None


def _ids(entries: Sequence[Any], source: str) -> list[int]:
    ids = _column(entries, "id", source)
    for index, value in enumerate(ids):
        if not isinstance(value, int):
            raise DataError(f"{source}: entry {index} has id {value!r}; ids must be integers")
    return ids


def _look_up(entries: Sequence[Any], key: str, ranks: Mapping[int, int], source: str, owner: str) -> np.ndarray:
    """(n,) ranks of the ids under `key`. Raises DataError for an id that is not in `ranks`."""
    ids = _column(entries, key, source)
    try:
        return np.fromiter((ranks[value] for value in ids), dtype=np.int64, count=len(ids))
    except (KeyError, TypeError):
        unknown = [value for value in ids if not isinstance(value, Hashable) or value not in ranks]
        index = _first(ids, lambda value: value is unknown[0])
        known = f"{len(ranks)} ids, {min(ranks)} to {max(ranks)}" if ranks else "no ids at all"
        raise DataError(
            f"{source}: entry {index} has {key} {unknown[0]!r}, which is not in {owner} ({known}); "
            f"{len(unknown)} of {len(ids)} entries are so"
        ) from None


def _boxes(entries: Sequence[Any], source: str) -> np.ndarray:
    """(n, 4) float64 xywh. Raises DataError unless every side is finite and no size is negative."""
    column = _column(entries, "bbox", source)
    boxes = _float_array(column, (len(column), 4))
    if boxes is None or not (boxes[:, 2:] >= 0).all():
        index = _first(column, lambda box: not _is_box(box))
        raise DataError(
            f"{source}: entry {index} has bbox {column[index]!r}; expected four finite numbers "
            "x, y, width, height, sizes not negative"
        )
    return boxes


def _numbers(column: Sequence[Any], key: str, source: str) -> np.ndarray:
    """(n,) float64. Raises DataError unless all are finite."""
    values = _float_array(column, (len(column),))
    if values is None:
        index = _first(column, lambda value: not _is_finite(value))
        raise DataError(f"{source}: entry {index} has {key} {column[index]!r}; expected a finite number")
    return values


def _float_array(column: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """Float64 of that shape, or None where anything is ragged, not a number or not finite."""
    if not column:
        return np.zeros(shape)
    try:
        array = np.array(column)  # no dtype yet: float64 would read the text "1" as 1.0
        array = array.astype(np.float64) if array.dtype.kind in "biufO" else None
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array is not None and array.shape == shape and np.isfinite(array).all() else None


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(-LARGEST <= value <= LARGEST)


def _is_box(value: object) -> bool:
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != 4:
        return False
    return all(_is_finite(number) for number in value) and value[2] >= 0 and value[3] >= 0


def _first(values: Sequence[Any], is_faulty: Callable[[Any], bool]) -> int:
    return next(index for index, value in enumerate(values) if is_faulty(value))


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
