"""The one module of this package that reads the environment: where to cache, what to compile with."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def user_cache_directory() -> Path:
    """Where the platform keeps what a user's programs can make again."""
    home = Path.home()
    match sys.platform:
        case "win32":
            default = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        case "darwin":
            default = home / "Library" / "Caches"
        case _:
            default = home / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default)


def compiler_command() -> list[str]:
    """How the C++ compiler is called: what CXX says, `c++` by default. Empty where there is no such program."""
    command = shlex.split(os.environ.get("CXX") or "c++")
    program = shutil.which(command[0]) if command else None
    return [program, *command[1:]] if program else []
