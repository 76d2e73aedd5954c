"""The one module of this package that reads the environment: where to cache, what to compile with."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def user_cache_directory() -> Path:
    """Where the platform keeps what a user's programs can make again. Raises OSError where a user has no home."""
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError as error:  # such as a container's user by number alone
        raise OSError("this user has no home directory: set XDG_CACHE_HOME to a folder for kernels") from error
    match sys.platform:
        case "win32":
            return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        case "darwin":
            return home / "Library" / "Caches"
        case _:
            return home / ".cache"


def compiler_command() -> list[str]:
    """How the C++ compiler is called: what CXX says, `c++` by default. Empty where there is no such program.

    Raises ValueError where CXX is no command line, such as one with half a pair of quotes.
    """
    command = shlex.split(os.environ.get("CXX") or "c++")
    program = shutil.which(command[0]) if command else None
    return [program, *command[1:]] if program else []
