"""Where compiled kernels are kept between runs, and how processes share them."""

import hashlib
import os
import tempfile
from pathlib import Path

from aligncli_ext.environment import user_cache_directory

_DIGEST_SIZE = hashlib.sha256().digest_size


def cache_directory() -> Path:
    """`aligncli` in the user's cache directory (XDG_CACHE_HOME, or what the platform has); it need not exist yet.

    Raises OSError where a user has none.
    """
    return user_cache_directory() / "aligncli"


def read_entry(path: Path) -> bytes | None:
    """What `write_entry` wrote there; None if nothing did, or if it is damaged."""
    try:
        entry = path.read_bytes()
    except OSError:
        return None
    digest, content = entry[:_DIGEST_SIZE], entry[_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == digest else None


def write_entry(path: Path, content: bytes) -> None:
    """Keep `content`, whole or not at all however many processes write it. Raises OSError where nothing can be kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
