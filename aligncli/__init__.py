"""aligncli: RoIConv, AlignDet and the instruments to study feature alignment in one-stage detection.

Importing this package imports no torch; `aligncli.ops` and the other parts are imported by name.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`aligncli.__version__`, read from the installed distribution when somebody asks."""
    if name == "__version__":
        from importlib.metadata import version

        return version("aligncli")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
