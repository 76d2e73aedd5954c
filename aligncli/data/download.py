"""COCO from its own server, when it is asked for by name: archives that go on where they stopped, checked, unpacked.

A folder of the data set appears under its name when it is whole, so one that is there is never fetched again. The
server has no HTTPS of its own and publishes no digests; size and MD5 are those that everybody has.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from aligncli.errors import DataError

BLOCK = 1 << 20  # bytes
SECONDS = 60.0  # of silence, after which the connection is given up
PARTIAL_CONTENT = 206  # the HTTP status of an answer to Range
Progress = Callable[[str, int, int], None]  # what is done, how much of it, and in all


@dataclass(frozen=True)
class Archive:
    """A zip file: where it is, what it must be, the folder it holds, and about how many bytes that takes."""

    url: str
    num_bytes: int
    md5: str
    folder: str
    unpacked_bytes: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


SERVER = "http://images.cocodataset.org"
ANNOTATIONS = Archive(
    f"{SERVER}/annotations/annotations_trainval2017.zip",
    252_907_541,
    "f4bbac642086de4f52a3fdda2de5fa2c",
    "annotations",
    1_100_000_000,
)
VAL = Archive(f"{SERVER}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80", "val2017", 850_000_000)
TRAIN = Archive(
    f"{SERVER}/zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017", 19_800_000_000
)
COCO = (ANNOTATIONS, VAL, TRAIN)


def missing(archives: Sequence[Archive], folder: Path) -> list[Archive]:
    """The archives whose folders are not there yet."""
    return [archive for archive in archives if not (folder / archive.folder).is_dir()]


def require_room(archives: Sequence[Archive], folder: Path) -> None:
    """Raises DataError unless the disk has room: for what is unpacked, and for one archive at a time beside it."""
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(present).free
    needed = unpacked = 0
    for archive in archives:
        left = archive.num_bytes - _size(_part_path(archive, folder))
        unpacked += archive.unpacked_bytes
        needed = max(needed, unpacked + left)
    if needed > free:
        raise DataError(
            f"{folder} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free: make room, "
            "or name a folder on another disk"
        )


def get(archive: Archive, folder: Path, progress: Progress) -> None:
    """Fetch an archive, or the rest of it, check it, and put its folder into `folder`. Raises DataError."""
    folder.mkdir(parents=True, exist_ok=True)
    part = _part_path(archive, folder)
    _fetch(archive, part, progress)
    _check(archive, part, progress)
    _unpack(archive, part, folder, progress)
    part.unlink()


def _fetch(archive: Archive, part: Path, progress: Progress) -> None:
    """Bring the file to its full size, from where it ends."""
    done = _size(part)
    if done > archive.num_bytes:
        part.unlink()
        done = 0
    if done == archive.num_bytes:
        return
    request = Request(archive.url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urlopen(request, timeout=SECONDS) as response:
            if done and response.status != PARTIAL_CONTENT:  # a server, or a proxy, that sends all of it
                done = 0
            total = done + int(response.headers.get("Content-Length") or archive.num_bytes - done)
            if total != archive.num_bytes:
                raise DataError(
                    f"{archive.url} has {total:,} bytes, not {archive.num_bytes:,}: this is not COCO's file"
                )
            with part.open("ab" if done else "wb") as file:
                while block := response.read(BLOCK):
                    done += file.write(block)
                    progress(f"fetching {archive.name}", done, archive.num_bytes)
    except (OSError, HTTPException) as error:
        reason = (
            f"HTTP {error.code} {error.reason}" if isinstance(error, HTTPError) else str(error) or type(error).__name__
        )
        raise _stopped(archive, done, reason) from error
    if done < archive.num_bytes:
        raise _stopped(archive, done, "the connection ended")


def _stopped(archive: Archive, done: int, reason: str) -> DataError:
    return DataError(
        f"{archive.url}: {done:,} of {archive.num_bytes:,} bytes are here ({reason}): "
        "the same command goes on from there"
    )


def _check(archive: Archive, part: Path, progress: Progress) -> None:
    """Raises DataError, and removes the file, where it is not what everybody has."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with part.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(f"checking {archive.name}", done, archive.num_bytes)
    if digest.hexdigest() != archive.md5:
        part.unlink()
        raise DataError(
            f"{archive.name} was damaged on its way (MD5 {digest.hexdigest()}, not {archive.md5}) and is removed: "
            "start the same command again"
        )


def _unpack(archive: Archive, path: Path, folder: Path, progress: Progress) -> None:
    """Unpack beside the folder's place and rename: it is there whole or not at all."""
    unfinished = folder / f".{archive.folder}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            for member in members:
                _require_inside(member, archive)
            for done, member in enumerate(members, start=1):
                file.extract(member, unfinished)
                progress(f"unpacking {archive.name}", done, len(members))
        (unfinished / archive.folder).rename(folder / archive.folder)
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _require_inside(member: zipfile.ZipInfo, archive: Archive) -> None:
    """Raises DataError for a member that is a link, or would lie outside the archive's folder."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    inside = path.parts[:1] == (archive.folder,) and ".." not in path.parts
    if not inside or stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{archive.name} holds {member.filename!r}: expected plain files below {archive.folder}/")


def _part_path(archive: Archive, folder: Path) -> Path:
    return folder / f"{archive.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
