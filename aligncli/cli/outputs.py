"""Where a command may write a file: under a name of its kind, and not over what a run or a data set consists of."""

from __future__ import annotations

from pathlib import Path

from aligncli.errors import UserError


def require_output(path: Path, *suffixes: str, option: str = "--out") -> None:
    """Raises UserError where a file at `path` would be of another kind, or replace one of a run's own."""
    from aligncli.engine.run_folder import OWN_FILES  # with pydantic, a tenth of a second that --help does without

    if path.is_dir():
        raise UserError(f"{option} {path} is a folder: expected a file, such as {path / f'NAME{suffixes[0]}'}")
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}")
    if path.name in OWN_FILES and (path.parent / "recipe.json").is_file():
        raise UserError(f"{option} {path} belongs to the run in {path.parent}: choose another name")


def require_folder(path: Path, *, option: str = "--out") -> None:
    """Raises UserError where `path` is something else than a folder."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} {path} is a file: expected a folder, which may be new")


def require_detections_or_nothing(path: Path, *, option: str) -> None:
    """Raises UserError where `path` holds anything but detections, such as a data set's annotations."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start and not start.startswith(b"["):
        raise UserError(f"{option} {path} holds something else than detections: choose another name")
