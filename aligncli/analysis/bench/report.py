"""What a benchmark found, in numbers: every sample, and what follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aligncli.analysis.bench.machine import Machine
from aligncli.analysis.bench.memory import MemoryUse
from aligncli.analysis.bench.timing import Sample, Spread


@dataclass(frozen=True)
class Result:
    """One contender in one part of the benchmark, such as `forward`.

    flops, traffic: of a call; the latter in bytes, see work.py, 0 if unknown. memory: None if unknown.
    note: why there are no samples; is_wrong: as it computes something else. dtype: where it is not the benchmark's.
    """

    name: str
    part: str
    flops: int
    samples: list[Sample] = field(default_factory=list)
    memory: MemoryUse | None = None
    note: str = ""
    is_wrong: bool = False
    traffic: int = 0
    dtype: str = field(default="", kw_only=True)

    @property
    def seconds(self) -> Spread:
        """Wall time of a call."""
        return Spread.of([sample.wall for sample in self.samples])

    @property
    def cpu_seconds(self) -> Spread:
        """Of all threads."""
        return Spread.of([sample.cpu for sample in self.samples])

    @property
    def flops_per_second(self) -> float:
        """At the median time."""
        return self.flops / self.seconds.median

    @property
    def intensity(self) -> float | None:
        """FLOPs a byte of traffic; None if one of them is unknown."""
        return self.flops / self.traffic if self.flops and self.traffic else None


@dataclass(frozen=True)
class Report:
    """All of a benchmark. `subject`: what was benchmarked; `product`: the machine's fastest matrix product, sampled
    among the contenders; `peer`: the name of the contender that the others are compared with.
    """

    bench: str
    subject: dict[str, Any]
    machine: Machine
    product: Result
    results: Sequence[Result]
    peer: str
    bandwidth: float | None = field(default=None, kw_only=True)  # bytes a second of a large copy, read and written
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def precision(self) -> str:
        """Of what computes on a device: the type, and whether float32 is TF32."""
        return self.subject["dtype"] + (" with TF32" if self.subject["tf32"] else "")

    def parts(self) -> dict[str, list[Result]]:
        """Results by part, in their order."""
        return {
            part: [result for result in self.results if result.part == part]
            for part in dict.fromkeys(result.part for result in self.results)
        }

    def ratio_to_peer(self, result: Result) -> float | None:
        """Of median times, in the same part; None where one of them was not timed."""
        peers = [other for other in self.results if (other.name, other.part) == (self.peer, result.part)]
        if not (result.samples and peers and peers[0].samples):
            return None
        return result.seconds.median / peers[0].seconds.median

    def share_of_product(self, result: Result) -> float | None:
        """Of the rate of the machine's matrix product; None where that is of another type."""
        if result.dtype and result.dtype != self.subject["dtype"]:
            return None
        return result.flops_per_second / self.product.flops_per_second

    def share_of_processor(self) -> float:
        """What the matrix product got of its threads; well below 1, something else was running."""
        return self.product.cpu_seconds.median / (self.product.seconds.median * self.machine.num_threads)

    def to_json(self) -> dict[str, Any]:
        """Everything, derived numbers included; times in seconds."""
        return {
            "bench": self.bench,
            "date": self.date,
            "machine": dataclasses.asdict(self.machine),
            "subject": self.subject,
            "product": self._as_json(self.product),
            "share_of_processor": self.share_of_processor(),
            "bandwidth": self.bandwidth,
            "peer": self.peer,
            "results": [self._as_json(result) for result in self.results],
        }

    def _as_json(self, result: Result) -> dict[str, Any]:
        fields = dataclasses.asdict(result)
        samples = fields.pop("samples")
        if not samples:
            return fields
        return fields | {
            "seconds": dataclasses.asdict(result.seconds),
            "cpu_seconds": dataclasses.asdict(result.cpu_seconds),
            "flops_per_second": result.flops_per_second,
            "share_of_product": self.share_of_product(result),
            "intensity": result.intensity,
            "ratio_to_peer": self.ratio_to_peer(result),
            "samples": samples,
        }
