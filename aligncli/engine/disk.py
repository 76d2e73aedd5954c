"""Files that are whole or absent: written beside their place, flushed to the disk, renamed.

A reader sees the old file or the new one, whenever the process is killed. A folder also gets a manifest, as
`sha256sum` writes and checks it. Where there is no room, what was there stays and the error counts the bytes.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from aligncli.errors import CheckpointError, TrainingError

MANIFEST = "manifest.sha256"
# A full disk, a full quota, and a file larger than the process may write (`ulimit -f`)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises TrainingError where there is no room, and other OSErrors."""
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")  # another process may write the same file
    try:
        with asking_for_room(path, len(content)):
            _write_flushed(temporary, content)
            temporary.replace(path)
            flush(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files and their manifest whole or not at all, in place of what was there; as `write_file`."""
    lines = [_manifest_line(name, hashlib.sha256(content).hexdigest()) for name, content in files.items()]
    files = {**files, MANIFEST: b"".join(lines)}
    partial = _hidden(folder, "partial")
    try:
        with asking_for_room(folder, sum(map(len, files.values()))):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, content in files.items():
                _write_flushed(partial / name, content)
            flush(partial)
            remove_folder(folder)
            partial.rename(folder)
            flush(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def require_sound(folder: Path, names: Sequence[str]) -> None:
    """Raise CheckpointError unless these files of the folder are, byte by byte, those of its manifest."""
    try:
        stated = (folder / MANIFEST).read_bytes()
        found = [_manifest_line(name, _digest(folder / name)) for name in names]
    except OSError as error:
        raise CheckpointError(f"{Path(error.filename).name} cannot be read ({error.strerror})") from error
    for name, line in zip(names, found):
        if line not in stated.splitlines(keepends=True):
            raise CheckpointError(f"{name} is not what {MANIFEST} says")
    if b"".join(found) != stated:
        raise CheckpointError(f"{MANIFEST} is damaged")


def is_sound(folder: Path, names: Sequence[str]) -> bool:
    """Whether `require_sound` has nothing to say."""
    try:
        require_sound(folder, names)
    except CheckpointError:
        return False
    return True


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there; one that is half removed is never seen under its name."""
    hidden = _hidden(folder, "removed")
    shutil.rmtree(hidden, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def remove_litter(parent: Path) -> None:
    """Remove what a process that was killed left of files and folders that it wrote or removed."""
    for hidden in [*parent.glob(".*.partial"), *parent.glob(".*.removed")]:
        shutil.rmtree(hidden, ignore_errors=True)
    for hidden in parent.glob(".*.tmp"):
        with suppress(OSError):
            hidden.unlink()


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk before going on."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows has no such call
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno == errno.EINVAL):  # some network file systems have none for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def asking_for_room(path: Path, num_bytes: int) -> Iterator[None]:
    """Turn an OSError that means "no room" into a TrainingError with the bytes that `path` needs."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise TrainingError(
            f"no room for {path}: {num_bytes:,} bytes are needed ({error.strerror}); what was there before is intact: "
            "make room (disk, quota or ulimit -f) and start again, a training with --resume"
        ) from error


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_line(name: str, digest: str) -> bytes:
    return f"{digest}  {name}\n".encode()


def _hidden(folder: Path, purpose: str) -> Path:
    return folder.with_name(f".{folder.name}.{purpose}")
