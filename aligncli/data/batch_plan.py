"""Which images are in which batch of a training run: a function of the run's seed and the batch's number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aligncli.data.random_stream import RandomStream

SHUFFLE, AUGMENT = 0, 1  # separate the two uses of a run's seed


class BatchPlan:
    """Which images are in batch b: shuffled epochs, landscape and portrait images apart.

    Each group is an endless stream of shuffled epochs, cut into batches; batches of the groups take turns in
    proportion to the groups' sizes. No image is seen a second time before all of its group were seen once.
    """

    def __init__(self, sizes: np.ndarray, *, batch_size: int, seed: int, aspect_grouping: bool) -> None:
        wide = sizes[:, 1] >= sizes[:, 0] if aspect_grouping else np.ones(len(sizes), bool)
        self._wide, self._tall = np.flatnonzero(wide), np.flatnonzero(~wide)
        self.batch_size = batch_size
        self._seed = seed
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # the last epoch used of each group

    def indices(self, batch: int) -> list[int]:
        """The images of batch number `batch` >= 0."""
        total = len(self._wide) + len(self._tall)
        tall_before = batch * len(self._tall) // total
        if (batch + 1) * len(self._tall) // total > tall_before:
            return self._cut(self._tall, group=1, batch=tall_before)
        return self._cut(self._wide, group=0, batch=batch - tall_before)

    def _cut(self, members: np.ndarray, *, group: int, batch: int) -> list[int]:
        """Batch number `batch` of one group; it may reach over the end of an epoch, or several."""
        first = batch * self.batch_size
        places = (divmod(place, len(members)) for place in range(first, first + self.batch_size))
        return [int(members[self._order(group, epoch, len(members))[rank]]) for epoch, rank in places]

    def _order(self, group: int, epoch: int, length: int) -> np.ndarray:
        known_epoch, order = self._orders.get(group, (-1, np.empty(0, np.int64)))
        if known_epoch != epoch:
            order = RandomStream(self._seed, SHUFFLE, group, epoch).permutation(length)
            self._orders[group] = epoch, order
        return order


class PlannedBatches:
    """A loader's batch sampler: for every image of `part` (position in the run, index in the data set)."""

    def __init__(self, plan: BatchPlan, *, first: int, last: int, part: slice) -> None:
        self._plan = plan
        self._batches = range(first, last)
        self._part = part

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches:
            yield list(enumerate(self._plan.indices(batch), start=batch * self._plan.batch_size))[self._part]
