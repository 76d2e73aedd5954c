"""Everything that is printed, and the only module that imports rich.

Results go to stdout; progress, notes and errors to stderr. With `--json`, stdout holds one JSON value and
the tables are dropped. Text that comes from files or users is data here: never markup, never control codes.
"""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from aligncli.config import Recipe

SECONDS_BETWEEN_LINES = 10.0  # without a terminal


def printable(text: object) -> str:
    """One line without control codes or undecodable bytes: file and class names can hold both."""
    line = " ".join(str(text).splitlines())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def number(value: float, digits: int = 1) -> str:
    """A metric for people; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """`0:42`, `12:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Output:
    """What one command prints: for people, or with `json` for programs."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._stdout = Console(highlight=False)
        self._stderr = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """A line beside the result, on stderr."""
        self._stderr.print(Text(printable(text)), soft_wrap=True)

    def line(self, text: str = "") -> None:
        """A line of the result; not in JSON mode."""
        if not self.json:
            self._stdout.print(Text(printable(text)), soft_wrap=True)

    def heading(self, title: str, text: str = "") -> None:
        """A title in bold and what goes with it; not in JSON mode."""
        if not self.json:
            self._stdout.print(Text.assemble((printable(title), "bold"), "  ", printable(text)), soft_wrap=True)

    def fields(self, fields: Mapping[str, str]) -> None:
        """Names and values in two columns; not in JSON mode."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="cyan", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in fields.items():
            grid.add_row(Text(printable(name)), Text(printable(value)))
        if not self.json:
            self._stdout.print(grid)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        title: str = "",
        text_columns: int = 1,
    ) -> None:
        """A table whose first `text_columns` columns hold text and the others numbers; not in JSON mode."""
        table = Table(
            title=Text(printable(title)) if title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        for index, column in enumerate(columns):
            is_text = index < text_columns
            table.add_column(Text(column), justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        if not self.json:
            self._stdout.print(table)

    def data(self, value: object) -> None:
        """The result as JSON, alone on stdout; only in JSON mode. NaN becomes null."""
        if self.json:
            sys.stdout.write(json.dumps(_without_nan(value), indent=2, allow_nan=False) + "\n")

    @contextmanager
    def progress(self) -> Iterator[ProgressReporter]:
        """A reporter for the engine: a live bar on a terminal, a plain line now and then elsewhere."""
        live = sys.stderr.isatty() and self._stderr.is_interactive  # rich alone would trust FORCE_COLOR
        display = LiveDisplay(self._stderr) if live else LineDisplay(self.note)
        try:
            yield ProgressReporter(display)
        finally:
            display.close()


def print_error(text: str, *, label: str = "error", debug: bool = False) -> None:
    """One line on stderr, after the current exception's traceback where `debug` asks for it."""
    if debug:
        traceback.print_exc()
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble((f"{label}: ", "bold red"), printable(text)), soft_wrap=True)


class Display(Protocol):
    """How far a stage (training, evaluating) is."""

    def message(self, text: str) -> None: ...

    def show(self, stage: str, done: int, total: int, status: str) -> None: ...

    def close(self) -> None: ...


class LiveDisplay:
    """A bar a stage that redraws itself, for terminals."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def message(self, text: str) -> None:
        self._progress.console.print(Text(printable(text)), soft_wrap=True)

    def show(self, stage: str, done: int, total: int, status: str) -> None:
        if stage not in self._tasks:
            self._progress.start()
            self._tasks[stage] = self._progress.add_task(stage, total=total, status=status)
        self._progress.update(self._tasks[stage], completed=done, total=total, status=status)

    def close(self) -> None:
        self._progress.stop()


class LineDisplay:
    """A line at the start of a stage, every few seconds, and at its end, for logs and pipes."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._stage = ""
        self._last = 0.0

    def message(self, text: str) -> None:
        self._write(text)

    def show(self, stage: str, done: int, total: int, status: str) -> None:
        now = self._clock()
        if stage != self._stage or done == total or now - self._last >= SECONDS_BETWEEN_LINES:
            self._stage, self._last = stage, now
            self._write(f"{stage} {done}/{total}  {status}".rstrip())

    def close(self) -> None:
        """Nothing is left open."""


class ProgressReporter:
    """The engine's Reporter (aligncli/engine/reporter.py) in words, on either display."""

    def __init__(self, display: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self._display = display
        self._clock = clock
        self._iterations = 0
        self._loss = ""
        self._evaluation_start = 0.0

    def message(self, text: str) -> None:
        self._display.message(text)

    def start(self, *, iterations: int, first: int, recipe: Recipe, num_parameters: int, num_images: int) -> None:
        self._iterations = iterations
        batch = recipe.schedule.batch_size
        self._display.message(
            f"{num_parameters / 1e6:.2f} M parameters, {num_images:,} training images, {batch} images a step"
        )
        if first:
            self._display.message(f"resumed after iteration {first}")

    def step(self, record: Mapping[str, float]) -> None:
        if "loss" in record:
            self._loss = f"loss {record['loss']:.3f}  "
        status = f"{self._loss}{record['images_per_second']:.1f} images/s  ETA {duration(record['eta_seconds'])}"
        self._display.show("training", int(record["iteration"]), self._iterations, status)

    def evaluation(self, *, done: int, total: int) -> None:
        now = self._clock()
        if not self._evaluation_start:
            self._evaluation_start = now
        left = (now - self._evaluation_start) / max(done, 1) * (total - done)
        self._display.show("evaluating", done, total, f"ETA {duration(left)}" if done < total else "")
        if done == total:
            self._evaluation_start = 0.0

    def finish(self) -> None:
        self._display.close()


def _without_nan(value: Any) -> Any:
    match value:
        case float() if math.isnan(value):
            return None
        case Mapping():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
        case _:
            return value
