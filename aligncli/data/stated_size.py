"""The size that annotations state for an image, against the (height, width) of its file, EXIF-upright.

Boxes are in the frame of the stated size. A resized file has them in it once they are scaled; a turned, cut or
exchanged one has them somewhere that no size tells.
"""

from __future__ import annotations

from typing import Any

from aligncli.data.coco_faults import is_number

Size = tuple[int, int]  # height, width
Scale = tuple[float, float]  # vertical, horizontal

_MIN_SIDE = 16  # pixels: rounding changes a shorter side by more than a sixteenth, which hides its aspect
_ROUNDED = ((-0.5, 0.5), (0.0, 1.0), (-1.0, 0.0))  # what to the nearest pixel, down and up leave open
_DIGITS = 3  # of a scaled coordinate, as in converted annotations


def size_fault(name: str, *, found: Size, stated: Size) -> str:
    """The message for an image whose upright (height, width) is not the one its annotations state."""
    reason = "boxes must refer to the image as EXIF turns it upright: " if found == stated[::-1] else ""
    return (
        f"image {name!r} is {found[1]} x {found[0]}, but its annotations say {stated[1]} x {stated[0]} "
        f"(width x height); {reason}correct the annotations or the file"
    )


def find_scale(*, found: Size, stated: tuple[float, float]) -> Scale | None:
    """What boxes at the stated size must be multiplied by, where the file was resized and nothing else.

    None where the aspects differ by more than a pixel's rounding, where the image may as well have been turned (almost
    square ones), and where a side is too short to tell.
    """
    if min(*found, *stated) < _MIN_SIDE or not _is_resized(found, stated):
        return None
    if stated[0] != stated[1] and _is_resized(found, (stated[1], stated[0])):
        return None
    return found[0] / stated[0], found[1] / stated[1]


def _is_resized(found: tuple[float, float], stated: tuple[float, float]) -> bool:
    """Whether one ratio makes both sides of one size those of the other, which were rounded in one of three ways."""
    return any(
        max((side + low) / other for side, other in zip(rounded, exact, strict=True))
        < min((side + high) / other for side, other in zip(rounded, exact, strict=True))
        for rounded, exact in ((found, stated), (stated, found))
        for low, high in _ROUNDED
    )


def scale_annotation(record: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """A copy with box, area, polygons and key points scaled; what is no such thing stays, for others to judge.

    A mask of run lengths has the pixels of its own size alone: the copy is without it.
    """
    vertical, horizontal = scale
    scaled = dict(record)
    box, area, mask, points = (record.get(key) for key in ("bbox", "area", "segmentation", "keypoints"))
    if _are_numbers(box, a_piece=4):
        scaled["bbox"] = _scale_all(box, (horizontal, vertical))
    if is_number(area):
        scaled["area"] = round(area * vertical * horizontal, _DIGITS)
    if isinstance(mask, list) and all(_are_numbers(polygon, a_piece=2) for polygon in mask):
        scaled["segmentation"] = [_scale_all(polygon, (horizontal, vertical)) for polygon in mask]
    else:
        scaled.pop("segmentation", None)
    if _are_numbers(points, a_piece=3):  # x, y, visibility
        scaled["keypoints"] = _scale_all(points, (horizontal, vertical, 1))
    return scaled


def _are_numbers(values: object, *, a_piece: int) -> bool:
    return isinstance(values, list) and len(values) % a_piece == 0 and all(map(is_number, values))


def _scale_all(values: Any, factors: tuple[float, ...]) -> list[float]:
    """Numbers times the factors, which repeat."""
    return [round(value * factors[place % len(factors)], _DIGITS) for place, value in enumerate(values)]
