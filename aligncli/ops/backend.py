"""Which implementation computes RoIConv, and why. The one module that reads the environment.

`reference` is the specification in plain PyTorch; `portable` is its fast twin, and runs wherever PyTorch does.
"""

import os
from dataclasses import dataclass

from aligncli.errors import RecipeError

BACKENDS = ("portable", "reference")
ENVIRONMENT_VARIABLE = "ALIGNCLI_ROI_CONV"


@dataclass(frozen=True)
class Backend:
    """A member of BACKENDS and one line, for people, on why it was chosen."""

    name: str
    reason: str


def choose_backend(requested: str = "auto") -> Backend:
    """The backend that computes RoIConv when `requested` (auto, or a member of BACKENDS) is asked for.

    The environment variable ALIGNCLI_ROI_CONV takes precedence, so that one run can be compared with another
    without a change to its recipe. Raises RecipeError for an unknown name.
    """
    forced = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    _check_known(forced, ENVIRONMENT_VARIABLE)
    _check_known(requested, "RoIConv backend")
    if forced != "auto":
        return Backend(forced, f"{ENVIRONMENT_VARIABLE} is set")
    if requested != "auto":
        return Backend(requested, "it was asked for")
    return Backend("portable", "it is the fastest one and runs on every device")


def _check_known(name: str, what: str) -> None:
    if name not in ("auto", *BACKENDS):
        raise RecipeError(f"{what} {name!r} is unknown: choose one of auto, {', '.join(BACKENDS)}")
