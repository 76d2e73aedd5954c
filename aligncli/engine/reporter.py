"""What the engine tells whoever watches. The library never prints: the CLI implements this."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from aligncli.config import Recipe
from aligncli.engine.interrupt import Interrupted, StopRequest


class Reporter(Protocol):
    """Receives progress. Called from the main thread, in order."""

    def message(self, text: str) -> None:
        """One line for people, for example how the learning rate was scaled."""
        ...

    def start(self, *, iterations: int, first: int, recipe: Recipe, num_parameters: int, num_images: int) -> None:
        """Training begins at iteration `first` (0, or where a resumed run stood) of `iterations`."""
        ...

    def step(self, record: Mapping[str, float]) -> None:
        """After an optimizer step: iteration, lr, images_per_second, eta_seconds, memory (bytes, the most so far).

        At logged steps also the losses.
        """
        ...

    def evaluation(self, *, done: int, total: int) -> None:
        """`done` of `total` images have been evaluated."""
        ...

    def evaluated(self, *, iteration: int, metrics: Mapping[str, float]) -> None:
        """An evaluation after `iteration` steps is done: its metrics, percent."""
        ...

    def finish(self) -> None:
        """No more progress comes; also called when training ends by an error or a signal."""
        ...


class SilentReporter:
    """Says nothing."""

    def message(self, text: str) -> None:
        """See Reporter."""

    def start(self, *, iterations: int, first: int, recipe: Recipe, num_parameters: int, num_images: int) -> None:
        """See Reporter."""

    def step(self, record: Mapping[str, float]) -> None:
        """See Reporter."""

    def evaluation(self, *, done: int, total: int) -> None:
        """See Reporter."""

    def evaluated(self, *, iteration: int, metrics: Mapping[str, float]) -> None:
        """See Reporter."""

    def finish(self) -> None:
        """See Reporter."""


class StoppableEvaluation(SilentReporter):
    """Tells a reporter how far an evaluation is, and ends it between two batches once a signal has come.

    A training that is stopped so is saved, and begins this evaluation anew when it is resumed.
    """

    def __init__(self, reporter: Reporter, request: StopRequest, *, run_dir: Path, iteration: int) -> None:
        self._reporter = reporter
        self._request = request
        self._run_dir = run_dir
        self._iteration = iteration

    def message(self, text: str) -> None:
        """See Reporter."""
        self._reporter.message(text)

    def evaluation(self, *, done: int, total: int) -> None:
        """See Reporter. Raises Interrupted."""
        self._reporter.evaluation(done=done, total=total)
        if self._request.signal_number is not None:
            raise Interrupted(self._run_dir, self._iteration, self._request.signal_number)
