"""What lies around: runs and data sets near the working folder. Reads small files alone and imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.engine.run_list import RunSummary

RUN_PLACES = (Path("runs"), Path("studies"))  # the defaults of --out
DATA_DEPTH = 2  # folders below the working folder
MAX_FOLDERS = 500  # that are looked into: a home folder has more, and the screen opens at once

DataFormat = Literal["coco", "yolo", "voc"]


@dataclass(frozen=True)
class DataFolder:
    """A folder that holds a data set, and in which format."""

    path: Path
    format: DataFormat


def find_run_folders() -> list[Path]:
    """Run folders in the usual places and in the working folder, the newest first."""
    from aligncli.engine.run_list import modified, run_folders

    found = {path for place in RUN_PLACES for path in run_folders(place)}
    found |= {path for path in _folders_in(Path()) for path in run_folders(path, depth=0)}
    return sorted(found, key=modified, reverse=True)


def recent_runs(count: int) -> list[RunSummary]:
    """The newest runs that can be read; `aligncli runs list` says what is wrong with the others."""
    from aligncli.engine.run_list import summarize

    runs = []
    for path in find_run_folders():
        try:
            runs.append(summarize(path))
        except UserError:
            continue
        if len(runs) == count:
            break
    return runs


def find_data() -> list[DataFolder]:
    """Data sets at most DATA_DEPTH folders below the working folder, which may be one itself."""
    found, seen, level = [], 0, [Path()]
    for depth in range(DATA_DEPTH + 1):
        below = []
        for path in level:
            seen += 1
            if seen > MAX_FOLDERS:
                return found
            data_format = data_format_of(path)
            if data_format is not None:
                found.append(DataFolder(path, data_format))
            elif depth < DATA_DEPTH:
                below += _folders_in(path)
        level = below
    return found


def data_format_of(folder: Path) -> DataFormat | None:
    """The format of the data set in a folder, by the files that it must have; None where it is none."""
    annotations = folder / "annotations"
    if any((annotations / f"instances_val{year}.json").is_file() for year in ("", "2017")):
        return "coco"
    if any((folder / name).is_file() for name in ("data.yaml", "data.yml", "dataset.yaml", "classes.txt")):
        return "yolo"
    return "voc" if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir() else None


def _folders_in(folder: Path) -> Iterator[Path]:
    """Its visible folders, in alphabetical order; none of one that may not be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return
    yield from (folder / name for name in names)
