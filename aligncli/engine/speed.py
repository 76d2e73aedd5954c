"""How fast a training steps, and how long that leaves: evaluations and checkpoints between its steps do not count."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Speed:
    """Of the steps since the training began or was resumed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._steps = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step: loading its images is part of it."""
        started = self._clock()
        yield
        self._seconds += self._clock() - started
        self._steps += 1

    def told(self, *, batch_size: int, left: int) -> dict[str, float]:
        """What Reporter.step is told of it: images a second, and the seconds that `left` steps take."""
        seconds = self._seconds / self._steps if self._steps else math.nan
        return {"images_per_second": batch_size / seconds, "eta_seconds": left * seconds}
