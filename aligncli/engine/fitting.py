"""Batches that are too large for the memory there is: run in parts, each half as large as the one that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aligncli.errors import TrainingError, first_line

Outputs = list[dict[str, Tensor]]


class FittingForward:
    """A detector's forward pass on lists of images, with parts no larger than what has fitted so far.

    Args:
        forward: of any number of images, one output each. told: gets a line when the parts become smaller.
    """

    def __init__(self, forward: Callable[[list[Tensor]], Outputs], told: Callable[[str], None]) -> None:
        self._forward = forward
        self._told = told
        self._largest: int | None = None

    def __call__(self, images: list[Tensor]) -> Outputs:
        """Outputs in the order of the images. Raises TrainingError where a single image does not fit."""
        outputs: Outputs = []
        while len(outputs) < len(images):
            part = images[len(outputs) :][: self._largest]
            fault = ""
            try:
                outputs += self._forward(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                fault = first_line(error)
            if fault:  # outside of `except`, whose traceback would keep the failed attempt's tensors alive
                self._shrink(len(part), fault)
        return outputs

    def _shrink(self, failed: int, fault: str) -> None:
        if failed == 1:
            raise TrainingError(f"one image alone does not fit into memory: lower input.max_short_side ({fault})")
        self._largest = failed // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._told(f"out of memory with {failed} images at once: going on with {self._largest}")


def is_out_of_memory(error: RuntimeError | Any) -> bool:
    """Of a GPU, or of the machine, which torch reports without a type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
