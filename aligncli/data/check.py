"""What is wrong with a data folder, one line a fault, and what is unusual: `aligncli data check`.

Goes on after a fault where it can, decodes every image once, and compares the two splits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligncli.config import CocoConfig
from aligncli.data.coco import annotation_path, image_folder
from aligncli.data.coco_faults import Fault, find_faults, is_integer, read_document
from aligncli.data.coco_notes import find_notes
from aligncli.data.dataset import Categories, Split, require_same_categories
from aligncli.data.images import ImageFacts, file_name_fault, inspect_image, safe_image_path
from aligncli.data.repair import repair
from aligncli.data.stated_size import size_fault
from aligncli.errors import DataError

_SHOWN_OF_A_KIND = 5
_WINDOW = 64  # images between two words about progress
_DEFAULTS = CocoConfig(root=".")


@dataclass
class Findings:
    """Of a data folder: what must be mended, what is only worth knowing, and how often each kind came up.

    Lines name the file and the place in it; of a kind there are the first five, and how many more there are.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path | str, faults: Tally, notes: Tally) -> None:
        """What was found in one annotation file."""
        for tally, lines in ((faults, self.faults), (notes, self.notes)):
            lines += [f"{path}: {line}" for line in tally.summary()]
            self.counts += tally.counts


class Tally:
    """Counts faults by kind and keeps the first five lines of each: there may be a million."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self.fatal: set[str] = set()  # lists of the document that hold a fatal fault
        self._lines: list[str] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """One more."""
        self.counts[fault.kind] += 1
        if self.counts[fault.kind] <= _SHOWN_OF_A_KIND:
            self._lines.append(str(fault))
        if fault.fatal:
            self.fatal.add(fault.where.partition("[")[0])

    def summary(self) -> list[str]:
        """One line a fault; from the sixth of a kind on, one line for all of them."""
        more = {kind: count - _SHOWN_OF_A_KIND for kind, count in self.counts.items() if count > _SHOWN_OF_A_KIND}
        return self._lines + [f"{count} more of the kind: {kind}" for kind, count in more.items()]


def check_folder(
    root: Path,
    *,
    images: str = _DEFAULTS.images,
    train_annotations: str = _DEFAULTS.train_annotations,
    val_annotations: str = _DEFAULTS.val_annotations,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Findings:
    """The faults of a data folder, none where it can be trained on and evaluated.

    Never raises for what is in it. `progress` is told images done and in all, of each split.
    """
    config = CocoConfig(
        root=str(root), images=images, train_annotations=train_annotations, val_annotations=val_annotations
    )
    findings = Findings()
    documents: dict[Split, dict[str, Any]] = {}
    for split in ("train", "val"):
        try:
            path = annotation_path(config, split)
            folder = image_folder(config, split)
            document = read_document(path)
        except DataError as error:
            if str(error) not in findings.faults:  # a missing folder is one fault, not one a split
                findings.faults.append(str(error))
            continue
        faults = Tally(find_faults(document))
        notes = Tally() if faults.fatal else Tally(find_notes(document))
        if "categories" not in faults.fatal:
            documents[split] = {key: document.get(key) for key in ("categories", "images")}
        _inspect_files(document, folder, progress, faults, notes)
        findings.add(path, faults, notes)
    if len(documents) == 2:
        _compare_splits(config, documents["train"], documents["val"], findings)
    return findings


def repair_split(
    config: CocoConfig, split: Split, *, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[dict[str, Any], Counter[str]]:
    """A sound copy of a split's annotations, masks included, and what was repaired (repair.py). Raises DataError."""
    path = annotation_path(config, split)
    folder = image_folder(config, split)
    document = read_document(path, masks=True)
    found = _inspect_images(document, folder, progress)
    sizes = {row: None if isinstance(facts, DataError) else (facts.height, facts.width) for row, _, facts in found}
    try:
        return repair(document, sizes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _inspect_files(
    document: dict[str, Any], folder: Path, progress: Callable[[int, int], None], faults: Tally, notes: Tally
) -> None:
    """Faults of the image files behind the records that name one, and what is unusual about them."""
    for row, record, found in _inspect_images(document, folder, progress):
        where, name = f"images[{row}].file_name", record["file_name"]
        if isinstance(found, DataError):
            faults.add(Fault(where, "cannot be used", str(found)))
            continue
        height, width = record.get("height"), record.get("width")
        size = (found.height, found.width)
        if is_integer(height) and is_integer(width) and (height, width) != size:
            text = size_fault(name, found=size, stated=(height, width))
            faults.add(Fault(where, "has another size", text))
        for oddity in found.oddities:
            notes.add(Fault(where, oddity, repr(name), fatal=False))


def _inspect_images(
    document: dict[str, Any], folder: Path, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, dict[str, Any], ImageFacts | DataError]]:
    """Row, record, and the facts of its file or why that cannot be used, of every usable file name.

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
            found = threads.map(lambda item: _inspect(folder, item[2]), window)
            yield from ((row, record, facts) for (row, record, _), facts in zip(window, found, strict=True))
    progress(len(named), len(named))


def _inspect(folder: Path, name: str) -> ImageFacts | DataError:
    try:
        return inspect_image(safe_image_path(folder, name))
    except DataError as error:
        return error


def _usable_name(record: object) -> str | None:
    name = record.get("file_name") if isinstance(record, dict) else None
    return name if isinstance(name, str) and file_name_fault(name) is None else None


def _compare_splits(config: CocoConfig, train: dict[str, Any], val: dict[str, Any], findings: Findings) -> None:
    """Differing categories, and validation images that are trained on."""
    source = str(Path(config.root) / config.val_annotations)
    try:
        require_same_categories(
            Categories.from_coco(train["categories"]), Categories.from_coco(val["categories"]), source=source
        )
    except DataError as error:
        findings.faults.append(str(error))
    train_files = {path for _, path in _image_files(train, image_folder(config, "train"))}
    shared = (
        Fault(f"images[{row}].file_name", "is a training image too", repr(path.name))
        for row, path in _image_files(val, image_folder(config, "val"))
        if path in train_files
    )
    findings.add(source, Tally(shared), Tally())


def _image_files(document: dict[str, Any], folder: Path) -> Iterator[tuple[int, Path]]:
    records = document.get("images")
    for row, record in enumerate(records if isinstance(records, list) else []):
        name = _usable_name(record)
        if name is not None:
            yield row, Path(os.path.normpath(folder / name))
