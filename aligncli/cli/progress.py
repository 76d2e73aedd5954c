"""How long work is told: the engine's Reporter in words, and the display of those who watch a log.

The display for terminals, a live bar, is in `render`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from aligncli.cli.training_view import TrainingView, duration

if TYPE_CHECKING:
    from aligncli.config import Recipe

SECONDS_BETWEEN_LINES = 10.0  # without a terminal
Clock = Callable[[], float]


class Display(Protocol):
    """How far a stage (training, evaluating) is."""

    def message(self, text: str) -> None: ...

    def show(self, stage: str, done: int, total: int, status: str) -> None: ...

    def training(self, view: TrainingView) -> None:
        """How far a training is, with what is known of it."""
        ...

    def parts(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """What the stage that is shown consists of right now: by name, done and in all."""
        ...

    def close(self) -> None: ...


class LineDisplay:
    """A line at the start of a stage, every few seconds, and at its end, for logs and pipes."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._stage = ""
        self._done = 0
        self._last = 0.0

    def message(self, text: str) -> None:
        self._write(text)

    def show(self, stage: str, done: int, total: int, status: str) -> None:
        now = self._clock()
        ends = done == total and done != self._done
        self._done = done
        if stage != self._stage or ends or now - self._last >= SECONDS_BETWEEN_LINES:
            self._stage, self._last = stage, now
            self._write(f"{stage} {done}/{total}  {status}".rstrip())

    def training(self, view: TrainingView) -> None:
        self.show("training", view.done, view.iterations, view.line())

    def parts(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """A log shows the whole alone: lines of parts would hide it."""

    def close(self) -> None:
        """Nothing is left open."""


class ProgressReporter:
    """The engine's Reporter (aligncli/engine/reporter.py) in words, on either display."""

    def __init__(
        self, display: Display, header: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._header = tuple(header)
        self._clock = clock
        self._view = TrainingView()
        self._detail = ""  # of trainings side by side
        self._since: tuple[float, float] | None = None  # when a stage's work began, and what was done by then

    def message(self, text: str) -> None:
        for line in (*self._header, text):
            self._display.message(line)
        self._header = ()

    def start(self, *, iterations: int, first: int, recipe: Recipe, num_parameters: int, num_images: int) -> None:
        self._view = TrainingView(iterations=iterations, done=first)
        batch = recipe.schedule.batch_size
        self.message(f"{num_parameters / 1e6:.2f} M parameters, {num_images:,} training images, {batch} images a step")
        if first:
            self.message(f"resumed after iteration {first}")

    def step(self, record: Mapping[str, float]) -> None:
        self._view.add(record)
        self._display.training(self._view)

    def evaluation(self, *, done: int, total: int) -> None:
        self.stage("evaluating", done=done, total=total)

    def evaluated(self, *, iteration: int, metrics: Mapping[str, float]) -> None:
        self._view.add({"iteration": iteration, "evaluation": metrics})

    def stage(self, name: str, *, done: int, total: int, share: float | None = None) -> None:
        """Any other work that is counted; the time left follows from the counts so far.

        Args:
            share: of the work, 0 to 1, where the counted things are not alike; the time left follows from it then.
        """
        now = self._clock()
        worked, whole = (done, total) if share is None else (share, 1.0)
        if self._since is None or worked <= self._since[1]:
            self._since = (now, worked)  # what passes before any of it is done, such as starting up, tells nothing
        start, first = self._since
        left = (now - start) / (worked - first) * (whole - worked) if worked > first else 0.0
        status = (self._detail, f"ETA {duration(left)}" if left else "")
        self._display.show(name, done, total, "  ".join(part for part in status if part))
        if done == total:
            self._since = None

    def runs(self, running: Mapping[str, tuple[int, int]], *, ended: int, waiting: int) -> None:
        """Trainings side by side: what runs, and how many have ended or still wait."""
        self._detail = f"runs: {ended} done, {len(running)} running, {waiting} waiting"
        self._display.parts(running)

    def finish(self) -> None:
        self._display.close()
