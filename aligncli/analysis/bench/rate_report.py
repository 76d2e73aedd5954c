"""What `aligncli bench data` and `eval` found: images a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aligncli.analysis.bench.report import Report, Result


@dataclass(frozen=True)
class RateResult(Result):
    """One contender, which does `num_images` in a call; nobody counts its operations.

    found: what it computed, in words or numbers, for a reader to compare.
    """

    num_images: int = 0
    found: str = ""

    @property
    def images_per_second(self) -> float:
        """At the median time."""
        return self.num_images / self.seconds.median


@dataclass(frozen=True)
class RateReport(Report):
    """`peer` is who the others are compared with; of the matrix product only the machine's rate is told."""

    results: Sequence[RateResult]

    def speed_up(self, result: RateResult) -> float | None:
        """How many times as fast as the peer; None where one of them was not timed."""
        ratio = self.ratio_to_peer(result)
        return None if ratio is None else 1 / ratio

    def _as_json(self, result: Result) -> dict[str, Any]:
        fields = super()._as_json(result)
        if not isinstance(result, RateResult):
            return fields
        for name in ("flops", "traffic", "intensity", "flops_per_second", "share_of_product"):
            fields.pop(name, None)
        if result.samples:
            fields |= {"images_per_second": result.images_per_second, "speed_up": self.speed_up(result)}
        return fields
