"""A data set in Pascal VOC's format: one XML file an image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from aligncli.data.convert import Box, Labelled, Source
from aligncli.data.dataset import Split
from aligncli.data.images import file_name_fault, is_file
from aligncli.data.stated_size import Size, size_fault
from aligncli.errors import DataError


def read_voc(root: Path) -> Source:
    """The images of a VOC folder, with their splits where ImageSets/Main names them; classes come with the boxes.

    Raises DataError where there are no annotations, and for XML that cannot be read or names no image.
    """
    files = sorted((root / "Annotations").glob("*.xml"))
    if not files:
        raise DataError(f"{root} holds no Annotations/*.xml: expected Pascal VOC's layout")
    splits = _splits(root)
    files = [path for path in files if not splits or path.stem in splits]
    images, names = [], set[str]()
    for path in files:
        tree = _parse(path)
        names |= {_text(path, item, "name") for item in tree.iter("object")}
        image = _image_path(root, path, tree)
        images.append(Labelled(image, image.name, partial(_read_boxes, path, tree), splits.get(path.stem)))
    return Source(images, tuple(sorted(names)))


def _splits(root: Path) -> dict[str, Split]:
    """Split by file stem; empty unless both lists are there."""
    lists: dict[Split, Path] = {
        "train": root / "ImageSets" / "Main" / "train.txt",
        "val": root / "ImageSets" / "Main" / "val.txt",
    }
    if not all(is_file(path) for path in lists.values()):
        return {}
    return {
        line.split()[0]: split
        for split, path in lists.items()
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.strip()
    }


def _parse(path: Path) -> ElementTree.Element:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow without bound
        raise DataError(f"{path}: document types and entities are refused")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML: {error}") from error


def _image_path(root: Path, path: Path, tree: ElementTree.Element) -> Path:
    name = _text(path, tree, "filename")
    fault = file_name_fault(name)
    if fault is not None or "/" in name:
        raise DataError(f"{path}: filename {name!r} is refused: {fault or 'it must name a file in JPEGImages'}")
    for folder in ("JPEGImages", "images", "."):
        if is_file(root / folder / name):
            return root / folder / name
    raise DataError(f"{path}: image {name!r} is not in {root / 'JPEGImages'}")


def _read_boxes(path: Path, tree: ElementTree.Element, width: int, height: int) -> list[Box]:
    """VOC counts pixels from 1, both ends inside; "difficult" objects are ignored, as in its own evaluation."""
    _require_size(path, tree, found=(height, width))
    boxes = []
    for item in tree.iter("object"):
        left, top, right, bottom = (_number(path, item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        xywh = (left - 1.0, top - 1.0, right - left + 1.0, bottom - top + 1.0)
        difficult = item.findtext("difficult", "0").strip() == "1"
        boxes.append(Box(_text(path, item, "name"), xywh, ignored=difficult))
    return boxes


def _require_size(path: Path, tree: ElementTree.Element, *, found: Size) -> None:
    """Raises DataError where boxes are for another size than the upright image's; tools write 0 for none."""
    height, width = (
        int(_number(path, tree, tag)) or own if (tree.findtext(tag) or "").strip() else own
        for tag, own in zip(("size/height", "size/width"), found, strict=True)
    )
    if (height, width) != found:
        name = _text(path, tree, "filename")
        raise DataError(f"{path}: {size_fault(name, found=found, stated=(height, width))}")


def _text(path: Path, element: ElementTree.Element, tag: str) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise DataError(f"{path}: <{element.tag}> lacks <{tag}>")
    return text


def _number(path: Path, element: ElementTree.Element, tag: str) -> float:
    text = _text(path, element, tag)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1e6 < value < 1e6:
        raise DataError(f"{path}: <{tag}> is {text!r}, expected a number of pixels")
    return value
