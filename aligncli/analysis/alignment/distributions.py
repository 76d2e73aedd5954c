"""Distributions of IoU that are counted, not kept: any number of locations in a few kilobytes.

IoU runs from 0 to 1 in NUM_BINS equal bins, the last of which holds 1 itself. Means are exact (float64 sums);
quartiles are read off the histogram, so they are good to a bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aligncli.boxes import to_float64

NUM_BINS = 50
BIN_EDGES = np.linspace(0.0, 1.0, NUM_BINS + 1)
SHARES_ABOVE = (0.5, 0.7)  # IoUs; both are edges of bins, so the shares are exact


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (...) of boxes (..., 4) with others (..., 4), one by one. Exactly 1 for equal boxes, 0 for empty ones."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    intersection = (high - low).clamp(min=0.0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0.0).prod(dim=-1) for x in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    return torch.where(union > 0, intersection / union, 0.0)


@dataclass(frozen=True)
class Distribution:
    """IoUs of one group of locations. `counts` (NUM_BINS,) int64; of no locations every number is NaN."""

    counts: np.ndarray
    total: float
    low: float
    high: float

    @property
    def num_locations(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return self.total / self.num_locations if self.num_locations else math.nan

    def quantile(self, share: float) -> float:
        """The IoU that `share` (0..1) of the locations do not exceed, linear within a bin."""
        if not self.num_locations:
            return math.nan
        place = share * self.num_locations
        before = np.concatenate([[0], np.cumsum(self.counts)])
        index = int(np.searchsorted(before[1:], place))  # the first bin by whose end that many have come
        value = BIN_EDGES[index] + (place - before[index]) / max(self.counts[index], 1) / NUM_BINS
        return float(min(max(value, self.low), self.high))

    def share_above(self, iou: float) -> float:
        """Share of locations at this IoU, an edge of a bin, or above."""
        if not self.num_locations:
            return math.nan
        return float(self.counts[round(iou * NUM_BINS) :].sum()) / self.num_locations

    def density(self) -> np.ndarray:
        """(NUM_BINS,) shares of the locations; NaN where there are none."""
        return self.counts / (self.num_locations or math.nan)

    def to_json(self) -> dict[str, Any]:
        """Plain data; "histogram" holds the counts of the bins."""
        return {
            "locations": self.num_locations,
            "mean": self.mean,
            "quartiles": [self.quantile(share) for share in (0.25, 0.5, 0.75)],
            "above": {f"{iou:g}": self.share_above(iou) for iou in SHARES_ABOVE},
            "histogram": self.counts.tolist(),
        }


class Tally:
    """Adds up the distributions of several groups at once; nothing is kept of a location but its bin."""

    def __init__(self, num_groups: int) -> None:
        self._counts = torch.zeros(num_groups * NUM_BINS, dtype=torch.int64)
        self._total = torch.zeros(num_groups, dtype=torch.float64)
        self._low = torch.full((num_groups,), math.inf, dtype=torch.float64)
        self._high = torch.full((num_groups,), -math.inf, dtype=torch.float64)

    def add(self, groups: Tensor, iou: Tensor) -> None:
        """One more location a row: `groups` (n,) int64 indices, `iou` (n,) in 0..1, on any device."""
        iou = to_float64(iou)
        groups = groups.to(iou.device)
        bins = (iou.float() * NUM_BINS).long().clamp_(0, NUM_BINS - 1)
        num_groups = len(self._total)
        self._counts += torch.bincount(groups * NUM_BINS + bins, minlength=len(self._counts)).cpu()
        self._total += torch.bincount(groups, weights=iou, minlength=num_groups).cpu()
        self._low.scatter_reduce_(0, groups.cpu(), iou.cpu(), "amin")
        self._high.scatter_reduce_(0, groups.cpu(), iou.cpu(), "amax")

    def distributions(self) -> list[Distribution]:
        """One a group, so far."""
        counts = self._counts.view(-1, NUM_BINS).numpy().copy()
        columns = zip(self._total.tolist(), self._low.tolist(), self._high.tolist())
        return [Distribution(row, *numbers) for row, numbers in zip(counts, columns)]


def merge(distributions: Sequence[Distribution]) -> Distribution:
    """The distribution of all their locations together."""
    return Distribution(
        np.sum([each.counts for each in distributions], axis=0),
        math.fsum(each.total for each in distributions),
        min(each.low for each in distributions),
        max(each.high for each in distributions),
    )
