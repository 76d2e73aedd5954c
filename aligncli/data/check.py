"""What is wrong with a data folder, one line a fault: `aligncli data check`.

Goes on after a fault where it can, decodes every image, and compares the two splits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aligncli.config import CocoConfig
from aligncli.data.coco import annotation_path, image_folder, size_fault
from aligncli.data.coco_faults import Fault, find_faults, is_integer, read_document
from aligncli.data.dataset import Categories, Split, require_same_categories
from aligncli.data.images import file_name_fault, read_image, safe_image_path
from aligncli.data.repair import repair
from aligncli.errors import DataError

_SHOWN_OF_A_KIND = 5
_WINDOW = 64  # images between two words about progress
_DEFAULTS = CocoConfig(root=".")


def check_folder(
    root: Path,
    *,
    images: str = _DEFAULTS.images,
    train_annotations: str = _DEFAULTS.train_annotations,
    val_annotations: str = _DEFAULTS.val_annotations,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[str]:
    """The faults of a data folder, one line each, the first five of a kind and how many more there are.

    An empty list means that the folder can be trained on and evaluated. Never raises for what is in it.
    `progress` is told images done and in all, of each split.
    """
    config = CocoConfig(
        root=str(root), images=images, train_annotations=train_annotations, val_annotations=val_annotations
    )
    faults: list[str] = []
    documents: dict[Split, dict[str, Any]] = {}
    for split in ("train", "val"):
        try:
            path = annotation_path(config, split)
            folder = image_folder(config, split)
            document = read_document(path)
        except DataError as error:
            if str(error) not in faults:  # a missing folder is one fault, not one a split
                faults.append(str(error))
            continue
        document_faults = list(find_faults(document))
        document_faults += _image_file_faults(document, folder, progress)
        faults += [f"{path}: {line}" for line in _summarise(document_faults)]
        if not any(fault.fatal for fault in document_faults if fault.where.startswith("categories")):
            documents[split] = document
    if len(documents) == 2:
        faults += _split_faults(config, documents["train"], documents["val"])
    return faults


def repair_split(
    config: CocoConfig, split: Split, *, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[dict[str, Any], Counter[str]]:
    """A sound copy of a split's annotations, masks included, and what was repaired (repair.py). Raises DataError."""
    path = annotation_path(config, split)
    folder = image_folder(config, split)
    document = read_document(path, masks=True)
    found = _inspect_images(document, folder, progress)
    sizes = {row: None if isinstance(size, DataError) else size for row, _, size in found}
    try:
        return repair(document, sizes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _image_file_faults(document: dict[str, Any], folder: Path, progress: Callable[[int, int], None]) -> Iterator[Fault]:
    """Faults of the image files behind the records that name one."""
    for row, record, found in _inspect_images(document, folder, progress):
        where = f"images[{row}].file_name"
        if isinstance(found, DataError):
            yield Fault(where, "cannot be used", str(found))
            continue
        height, width = record.get("height"), record.get("width")
        if is_integer(height) and is_integer(width) and (height, width) != found:
            text = size_fault(record["file_name"], found=found, stated=(height, width))
            yield Fault(where, "has another size", text)


def _inspect_images(
    document: dict[str, Any], folder: Path, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, dict[str, Any], tuple[int, int] | DataError]]:
    """Row, record, and the (height, width) of its file or why that cannot be used, of every usable file name.

    Files are decoded whole, or a truncated one would pass; on all cores, a window at a time.
    """
    records = document.get("images")
    named = [
        (row, record, name)
        for row, record in enumerate(records if isinstance(records, list) else [])
        if (name := _usable_name(record)) is not None
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes without Python's lock
        for first in range(0, len(named), _WINDOW):
            progress(first, len(named))
            window = named[first : first + _WINDOW]
            sizes = threads.map(lambda item: _upright_size(folder, item[2]), window)
            yield from ((row, record, size) for (row, record, _), size in zip(window, sizes, strict=True))
    progress(len(named), len(named))


def _upright_size(folder: Path, name: str) -> tuple[int, int] | DataError:
    try:
        _, height, width = read_image(safe_image_path(folder, name)).shape
    except DataError as error:
        return error
    return height, width


def _usable_name(record: object) -> str | None:
    name = record.get("file_name") if isinstance(record, dict) else None
    return name if isinstance(name, str) and file_name_fault(name) is None else None


def _split_faults(config: CocoConfig, train: dict[str, Any], val: dict[str, Any]) -> Iterator[str]:
    """Differing categories, and validation images that are trained on."""
    source = str(Path(config.root) / config.val_annotations)
    try:
        require_same_categories(
            Categories.from_coco(train["categories"]), Categories.from_coco(val["categories"]), source=source
        )
    except DataError as error:
        yield str(error)
    train_files = {path for _, path in _image_files(train, image_folder(config, "train"))}
    shared = [
        Fault(f"images[{row}].file_name", "is a training image too", repr(path.name))
        for row, path in _image_files(val, image_folder(config, "val"))
        if path in train_files
    ]
    yield from (f"{source}: {line}" for line in _summarise(shared))


def _image_files(document: dict[str, Any], folder: Path) -> Iterator[tuple[int, Path]]:
    records = document.get("images")
    for row, record in enumerate(records if isinstance(records, list) else []):
        name = _usable_name(record)
        if name is not None:
            yield row, Path(os.path.normpath(folder / name))


def _summarise(faults: Iterable[Fault]) -> Iterator[str]:
    """One line a fault; from the sixth of a kind on, one line for all of them."""
    counts: Counter[str] = Counter()
    for fault in faults:
        counts[fault.kind] += 1
        if counts[fault.kind] <= _SHOWN_OF_A_KIND:
            yield str(fault)
    for kind, count in counts.items():
        if count > _SHOWN_OF_A_KIND:
            yield f"{count - _SHOWN_OF_A_KIND} more of the kind: {kind}"
