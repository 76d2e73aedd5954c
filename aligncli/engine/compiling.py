"""torch.compile for detectors, with one line for a machine on which it does not work."""

import torch
from torch import nn

from aligncli.errors import DeviceError, first_line


def compile_detector(model: nn.Module, *, backend: str = "inductor") -> None:
    """Let `model` be compiled when it is called, for images of any size. Raises DeviceError where nothing can be.

    A C++ compiler that is missing would show at the first call, deep in torch: a small function is tried here.
    """
    device = next(model.parameters()).device
    try:
        torch.compile(_small, backend=backend)(torch.ones(8, device=device))
    except RuntimeError as error:
        raise DeviceError(
            f"torch.compile does not work on this machine ({first_line(error)}): install g++, or leave --compile out"
        ) from error
    model.compile(dynamic=True, backend=backend)


def _small(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
