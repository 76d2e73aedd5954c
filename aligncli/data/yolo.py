"""A data set in YOLO's format, as Ultralytics, Roboflow and labelling tools write it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from aligncli.data.convert import Box, Labelled, Source, image_files
from aligncli.data.dataset import Split
from aligncli.data.images import is_file
from aligncli.errors import DataError

SPLIT_KEYS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid")}


def read_yolo(root: Path) -> Source:
    """The images of a YOLO folder, with their splits where data.yaml names them.

    Raises DataError where there are no class names, no images or no label files, and for an image in both splits.
    """
    settings = _settings(root)
    names = _class_names(root, settings)
    posed = settings.get("kpt_shape") is not None
    images: list[Labelled] = []
    for split, paths in _splits(root, settings).items():
        labels = [_label_path(root, path.relative_to(root)) for path in paths]
        if not any(is_file(label) for label in labels):
            raise DataError(
                f"none of the {len(labels):,} images{f' of {split}' if split else ''} has a label file; the first that "
                f"was looked for is {labels[0]}: labels/ must lie beside images/, with a file of the same name an image"
            )
        for path, label in zip(paths, labels, strict=True):
            read = partial(_read_labels, label, names, posed=posed)
            images.append(Labelled(path, _file_name(root, path), read, split))
    return Source(images, names)


def _splits(root: Path, settings: dict[str, Any]) -> dict[Split | None, list[Path]]:
    """The images of each split that data.yaml names; if it names none, all of them under None."""
    splits: dict[Split | None, list[Path]] = {}
    for split, keys in SPLIT_KEYS.items():
        folders = _folders(root, settings, keys)
        paths = dict.fromkeys(path for folder in folders for path in image_files(folder))  # folders may lie in another
        if paths:
            splits[split] = list(paths)
    if not splits:
        return {None: list(image_files(root / "images" if (root / "images").is_dir() else root))}
    trained = {os.path.realpath(path) for path in splits.get("train", ())}
    shared = [path for path in splits.get("val", ()) if os.path.realpath(path) in trained]
    if shared:
        raise DataError(
            f"data.yaml of {root} names the same images for train and val, {len(shared):,} of them, the first is "
            f"{shared[0]}: name a folder for each, or neither train nor val, and --val-share splits the images"
        )
    return splits


def _settings(root: Path) -> dict[str, Any]:
    for path in (root / "data.yaml", root / "data.yml", root / "dataset.yaml"):
        if is_file(path):
            try:
                settings = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
            if not isinstance(settings, dict):
                raise DataError(f"{path}: expected keys such as names, train and val")
            return settings
    return {}


def _class_names(root: Path, settings: dict[str, Any]) -> tuple[str, ...]:
    names = settings.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if names is None and is_file(root / "classes.txt"):
        lines = (root / "classes.txt").read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    if not (isinstance(names, list) and names and len({str(name) for name in names}) == len(names)):
        raise DataError(
            f"{root} names no classes: expected `names` in data.yaml, or classes.txt with one distinct name a line"
        )
    return tuple(str(name) for name in names)


def _folders(root: Path, settings: dict[str, Any], keys: tuple[str, ...]) -> list[Path]:
    """The image folders of a split: data.yaml's, taken below `root` whatever it says, or none."""
    entries = next((settings[key] for key in keys if settings.get(key)), [])
    folders = []
    for entry in entries if isinstance(entries, list) else [entries]:
        folder = next((candidate for candidate in _candidates(root, str(entry)) if candidate.is_dir()), None)
        if folder is None:
            raise DataError(
                f"data.yaml of {root} names {entry!r} for {keys[0]}: there is no such folder below {root}; correct it, "
                "or name neither train nor val, and --val-share splits the images"
            )
        folders.append(folder)
    return folders


def _candidates(root: Path, entry: str) -> list[Path]:
    """Where the folder may lie below `root`, the longest path first: an entry may be of another machine.

    The last part that is not images/ stays in all of them: without it the images would be another split's.
    """
    path = Path(entry)
    parts = [part for part in path.parts if part not in ("..", ".", path.anchor)]
    telling = [place for place, part in enumerate(parts) if part != "images"]
    return [root.joinpath(*parts[start:]) for start in range(1 + max(telling, default=0))]


def _file_name(root: Path, path: Path) -> str:
    return "/".join(part for part in path.relative_to(root).parts if part != "images")


def _label_path(root: Path, image: Path) -> Path:
    """labels/ in the place of the last images/; beside the image where there is none."""
    parts = list(image.with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return root.joinpath(*parts)


def _read_labels(path: Path, names: tuple[str, ...], width: int, height: int, *, posed: bool) -> list[Box]:
    """Boxes of a label file; none where there is no file, which is how YOLO says "nothing here".

    In a `posed` data set key points follow the box, and are left out.
    """
    if not is_file(path):
        return []
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if line.strip():
            try:
                label, *values = line.split()
                xywh = _to_pixels(values[:4] if posed else values, width, height)
                boxes.append(Box(names[_class_number(label, len(names))], xywh))
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
    return boxes


def _class_number(text: str, num_classes: int) -> int:
    if not (text.isdecimal() and int(text) < num_classes):
        raise ValueError(f"class {text!r}: expected a number from 0 to {num_classes - 1}")
    return int(text)


def _to_pixels(values: list[str], width: int, height: int) -> tuple[float, float, float, float]:
    """xywh of "cx cy w h", or of a polygon "x1 y1 x2 y2 x3 y3 ...", in shares of the image."""
    shares = [float(value) for value in values]
    if not all(-1.0 <= share <= 2.0 for share in shares):  # NaN too
        raise ValueError(f"{' '.join(values[:8])}: expected shares of the image, 0 to 1")
    if len(shares) == 4:
        cx, cy, w, h = shares
        if w < 0 or h < 0:
            raise ValueError(f"{' '.join(values)}: expected a width and a height of 0 or more")
        return (cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height
    if len(shares) < 6 or len(shares) % 2:
        raise ValueError(f"{len(shares)} values behind the class: expected cx cy w h, or a polygon of x y pairs")
    xs, ys = shares[0::2], shares[1::2]
    return min(xs) * width, min(ys) * height, (max(xs) - min(xs)) * width, (max(ys) - min(ys)) * height
