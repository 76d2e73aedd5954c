"""Where kernels read: the taps of a convolution in its implicit RoI, moved by offsets where it has any.

Taps are (x, y) in pixels of the images as passed, row by row of the k x k kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from aligncli.ops import roi_taps


def deciding_kernel(head: nn.Module) -> int:
    """Side of the last spatial convolution before the outputs: its RoI is what a location reads (section 4.1)."""
    weights = [x for x in head.parameters() if x.dim() == 4]  # of convolutions of every kind
    return next((x.shape[-1] for x in reversed(weights) if x.shape[-1] > 1), 1)


def alignment_taps(alignment: Any, features: Tensor, boxes: Tensor, stride: float) -> Tensor:
    """Of one level: what the variant says, or an even grid in the implicit RoIs of a user's own that does not."""
    level = [features], [boxes], [stride]
    if hasattr(alignment, "sampling_points"):
        return alignment.sampling_points(*level)[0]
    return roi_taps(alignment.implicit_rois(*level)[0].float(), getattr(alignment, "kernel_size", 1), stride)


@contextmanager
def offsets_seen_by(convolution: nn.Module | None) -> Iterator[list[Tensor]]:
    """A list that fills with the offsets (N, 2 K, H, W) that a deformable convolution is given, a level each."""
    seen: list[Tensor] = []
    if convolution is None:
        yield seen
        return
    handle = convolution.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[1]))
    try:
        yield seen
    finally:
        handle.remove()
