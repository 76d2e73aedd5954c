"""aligncli: RoIConv, AlignDet and the instruments to study feature alignment in one-stage detection.

`from aligncli import RoIConv2d, build_detector, load_run` is what a project of one's own starts with
(docs/library.md). Importing this package imports no torch: each name loads its part when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligncli.engine.inference import load_run
    from aligncli.engine.library import build_detector
    from aligncli.ops import RoIConv2d

    __version__: str

__all__ = ["RoIConv2d", "__version__", "build_detector", "load_run"]

_PLACES = {
    "RoIConv2d": "aligncli.ops",
    "build_detector": "aligncli.engine.library",
    "load_run": "aligncli.engine.inference",
}


def __getattr__(name: str) -> Any:
    """The names above, and `__version__` as the installed distribution has it."""
    if name == "__version__":
        from importlib.metadata import version

        return version("aligncli")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
