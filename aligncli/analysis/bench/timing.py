"""Interleaved timing: A B A B ..., so that whatever drifts on a machine (clock, heat, neighbours) hits all alike.

Every contender is called in the first round. From what that took, the rounds that follow are planned: all of
them for who is quick, fewer, evenly spread, for who is slow. Samples are wall seconds of a call, and beside them
CPU seconds of all threads, which tell a busy machine from a slow contender. Warming up is the caller's part.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Report = Callable[[int, int], None]  # how many calls are done, and of how many
FEWEST_RUNS = 3  # of a slow contender, whatever the budget


@dataclass(frozen=True)
class Sample:
    """Seconds of one call; of the mean call where a sample is several in a row."""

    round: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; between two of them, quartiles are interpolated linearly."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Timer:
    """Clocks in seconds. `synchronize` waits until a device has done what it was given.

    shortest: a sample that would take less is made of several calls in a row, which a GPU needs: it is launched
        ahead of time, and a single short call would measure the launch.
    """

    synchronize: Callable[[], object] = lambda: None
    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time
    shortest: float = 0.0

    def sample(self, call: Callable[[], object], *, calls: int = 1, round: int = 0) -> Sample:
        """Time `calls` calls in a row. What the last one returns is freed outside of the time."""
        self.synchronize()
        wall, cpu = self.wall(), self.cpu()
        result = call()
        for _ in range(calls - 1):
            result = call()
        self.synchronize()
        sample = Sample(round, (self.wall() - wall) / calls, (self.cpu() - cpu) / calls)
        del result
        return sample

    def calls_a_sample(self, call: Callable[[], object]) -> int:
        """How many calls last `shortest`, found by calling once."""
        return max(1, math.ceil(self.shortest / self.sample(call).wall)) if self.shortest else 1


def interleave(
    contenders: Mapping[Key, Callable[[], object]],
    *,
    runs: int,
    seconds: float,
    timer: Timer,
    report: Report = lambda _done, _total: None,
) -> dict[Key, list[Sample]]:
    """Samples of warm contenders: `runs` of each where `seconds` allow it, else at least FEWEST_RUNS."""
    calls = {key: timer.calls_a_sample(call) for key, call in contenders.items()}
    samples: dict[Key, list[Sample]] = {key: [] for key in contenders}
    keys = list(contenders)
    done = 0

    def run(key: Key, round_number: int, total: int) -> None:
        nonlocal done
        samples[key].append(timer.sample(contenders[key], calls=calls[key], round=round_number))
        done += 1
        report(done, total)

    with _without_garbage_collection():
        for key in keys:
            run(key, 0, runs * len(keys))
        durations = [samples[key][0].wall * calls[key] for key in keys]
        counts = plan_counts(durations, runs=runs, seconds=seconds)
        for round_number, members in enumerate(plan_rounds(counts)):
            for index in members if round_number > 0 else ():
                run(keys[index], round_number, sum(counts))
    return samples


def plan_counts(durations: Sequence[float], *, runs: int, seconds: float) -> list[int]:
    """How many samples of each contender, 1 to `runs`, given how long a sample of each takes.

    All get the same share of `seconds`, and what the quick ones leave over goes to the slow ones.
    """
    share = _fair_share([runs * duration for duration in durations], seconds)
    fewest = min(FEWEST_RUNS, runs)
    return [max(fewest, int(min(share / duration, runs))) for duration in durations]


def plan_rounds(counts: Sequence[int]) -> list[list[int]]:
    """For each round, who takes part: all in the first one, then each contender evenly spread."""
    num_rounds = max(counts)
    return [
        [index for index, count in enumerate(counts) if number == 0 or _steps(number, count, num_rounds)]
        for number in range(num_rounds)
    ]


def _steps(number: int, count: int, num_rounds: int) -> bool:
    return number * count // num_rounds != (number - 1) * count // num_rounds


def _fair_share(wishes: Sequence[float], total: float) -> float:
    """The share at which the sum of min(wish, share) is the total; infinite if all wishes fit."""
    left = total
    for position, wish in enumerate(sorted(wishes)):
        share = left / (len(wishes) - position)
        if wish > share:
            return share
        left -= wish
    return math.inf


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A collection in the middle of one contender's call would be counted against it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
