"""Where a command may write: known before its work begins, and never over what a run or a data set consists of."""

from __future__ import annotations

import os
from pathlib import Path

from aligncli.errors import UserError


def require_output(path: Path, *suffixes: str, option: str = "--out") -> None:
    """Raises UserError where a file at `path` cannot be, would be of another kind, or replace one of a run's own."""
    from aligncli.engine.run_folder import OWN_FILES  # with pydantic, a tenth of a second that --help does without

    if path.is_dir():
        raise UserError(f"{option} {path} is a folder: expected a file, such as {path / f'NAME{suffixes[0]}'}")
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}")
    if path.name in OWN_FILES and (path.parent / "recipe.json").is_file():
        raise UserError(f"{option} {path} belongs to the run in {path.parent}: choose another name")
    _require_place(path.parent, f"{option} {path}")


def require_folder(path: Path, *, option: str = "--out") -> None:
    """Raises UserError where `path` is something else than a folder, or a new one that cannot be made."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} {path} is a file: expected a folder, which may be new")
    _require_place(path, f"{option} {path}")


def require_detections_or_nothing(path: Path, *, option: str) -> None:
    """Raises UserError where `path` cannot be, or holds anything but detections, such as a data set's annotations."""
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder: expected the name of a .json file for the detections")
    _require_place(path.parent, f"{option} {path}")
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start and not start.startswith(b"["):
        raise UserError(f"{option} {path} holds something else than detections: choose another name")


def _require_place(folder: Path, what: str) -> None:
    """Raises UserError, which begins with `what`, where a folder neither is there to write in nor can be made."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{what}: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{what}: {nearest} may not be written in")
