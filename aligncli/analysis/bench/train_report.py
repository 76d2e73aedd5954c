"""What `aligncli bench train` found: seconds and bytes of an optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aligncli.analysis.bench.report import Report, Result


@dataclass(frozen=True)
class TrainResult(Result):
    """One detector. Its samples are steps; `memory.kept` is the training between two of them, weights included.

    num_images: a step. num_parameters, num_trained: elements; the latter without frozen ones.
    remark: what a reader has to know though the detector was timed.
    """

    num_images: int = 0
    num_parameters: int = 0
    num_trained: int = 0
    remark: str = ""

    @property
    def images_per_second(self) -> float:
        """At the median time."""
        return self.num_images / self.seconds.median

    @property
    def peak_memory(self) -> int | None:
        """Bytes at the worst moment of a step: weights, gradients, optimizer state, activations, scratch."""
        return None if self.memory is None else self.memory.kept + self.memory.peak


@dataclass(frozen=True)
class TrainReport(Report):
    """`peer` is torchvision's RetinaNet where it takes part."""

    results: Sequence[TrainResult]

    def memory_ratio(self, result: TrainResult) -> float | None:
        """Of peak memory, to the peer's; None where one of them is unknown."""
        peers = [other.peak_memory for other in self.results if other.name == self.peer]
        if result.peak_memory is None or not (peers and peers[0]):
            return None
        return result.peak_memory / peers[0]

    def _as_json(self, result: Result) -> dict[str, Any]:
        fields = super()._as_json(result)
        if not isinstance(result, TrainResult) or not result.samples:
            return fields
        return fields | {
            "images_per_second": result.images_per_second,
            "peak_memory": result.peak_memory,
            "memory_ratio_to_peer": self.memory_ratio(result),
        }
