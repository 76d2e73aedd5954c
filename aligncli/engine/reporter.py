"""What the engine tells whoever watches. The library never prints: the CLI implements this."""

from collections.abc import Mapping
from typing import Protocol

from aligncli.config import Recipe


class Reporter(Protocol):
    """Receives progress. Called from the main thread, in order."""

    def message(self, text: str) -> None:
        """One line for people, for example how the learning rate was scaled."""
        ...

    def start(self, *, iterations: int, first: int, recipe: Recipe, num_parameters: int, num_images: int) -> None:
        """Training begins at iteration `first` (0, or where a resumed run stood) of `iterations`."""
        ...

    def step(self, record: Mapping[str, float]) -> None:
        """After an optimizer step: iteration, lr, images_per_second, eta_seconds; at logged steps the losses."""
        ...

    def evaluation(self, *, done: int, total: int) -> None:
        """`done` of `total` images have been evaluated."""
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

    def finish(self) -> None:
        """See Reporter."""
