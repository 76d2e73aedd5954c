"""Everything that is printed; this module and tables.py alone import rich.

Results go to stdout; progress, notes and errors to stderr. With `--json`, stdout holds one JSON value and
the tables are dropped. Text that comes from files or users is data here: never markup, never control codes.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from aligncli.cli.progress import Display, LineDisplay, ProgressReporter
from aligncli.cli.tables import Cell, fitted_tables, grid
from aligncli.cli.training_view import TrainingView
from aligncli.plain import only_finite, printable


class Output:
    """What one command prints: for people, or with `json` for programs."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._stdout = Console(highlight=False)
        self._stderr = Console(stderr=True, highlight=False)
        self._live = sys.stderr.isatty() and self._stderr.is_interactive  # rich alone would trust FORCE_COLOR

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
        if not self.json:
            self._stdout.print(grid(fields))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        title: str = "",
        text_columns: int = 1,
        wrapped_columns: Sequence[int] = (),
    ) -> None:
        """A table whose first `text_columns` columns, and `wrapped_columns`, hold text, the others numbers.

        Where that is too wide, long names are broken between their parts, or columns go on in a second table. Not in
        JSON mode.
        """
        if not self.json:
            text = {*range(text_columns), *wrapped_columns}
            for table in fitted_tables(columns, rows, title=title, text=text, width=self._stdout.width):
                self._stdout.print(table)

    def data(self, value: object) -> None:
        """The result as JSON, alone on stdout; only in JSON mode. NaN and infinities become null."""
        if self.json:
            sys.stdout.write(json.dumps(only_finite(value), indent=2, allow_nan=False) + "\n")

    def waiting(self, text: str = "starting") -> AbstractContextManager[object]:
        """A spinner on a terminal while something without progress goes on, such as torch's import."""
        return self._stderr.status(text) if self._live else nullcontext()

    @contextmanager
    def progress(
        self, header: Sequence[str] = (), *, waiting: str = "loading data and model"
    ) -> Iterator[ProgressReporter]:
        """A reporter for the engine: a live bar on a terminal, a plain line now and then elsewhere.

        The header waits for the first report, so that an error in the input stays alone; `waiting` is what a
        terminal shows until then.
        """
        with self.display(waiting) as display:
            yield ProgressReporter(display, header)

    @contextmanager
    def display(self, waiting: str) -> Iterator[Display]:
        """What `progress` draws on."""
        display = LiveDisplay(self._stderr, waiting) if self._live else LineDisplay(self.note)
        try:
            yield display
        finally:
            display.close()


def print_error(text: str, *, label: str = "error", debug: bool = False) -> None:
    """One line on stderr, after the current exception's traceback where `debug` asks for it."""
    if debug:
        traceback.print_exc()
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble((f"{label}: ", "bold red"), printable(text)), soft_wrap=True)


class NoteHandler(logging.Handler):
    """Prints a library's log records as notes, each a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        Output().note(record.getMessage())


def show_log(name: str) -> None:
    """Print what the logger `name` is told, from warnings on."""
    logger = logging.getLogger(name)
    if not any(isinstance(handler, NoteHandler) for handler in logger.handlers):
        logger.addHandler(NoteHandler())


class DetailedProgress(Progress):
    """Bars, and below them rows of what else is known."""

    details: Mapping[str, str] = {}

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.details:
            yield grid(self.details)


class LiveDisplay:
    """A bar a stage that redraws itself, for terminals, with details below where there are any."""

    def __init__(self, console: Console, waiting: str = "") -> None:
        self._progress = DetailedProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._parts: dict[str, TaskID] = {}
        self._waiting = console.status(waiting)
        self._waiting.start()

    def message(self, text: str) -> None:
        self._waiting.stop()
        self._progress.console.print(Text(printable(text)), soft_wrap=True)

    def show(self, stage: str, done: int, total: int, status: str) -> None:
        status = printable(status)
        if stage not in self._tasks:
            self._waiting.stop()
            self._progress.start()
            self._tasks[stage] = self._progress.add_task(printable(stage), total=total, status=status)
        self._progress.update(self._tasks[stage], completed=done, total=total, status=status)

    def training(self, view: TrainingView) -> None:
        self._progress.details = view.rows()
        self.show("training", view.done, view.iterations, view.speed())

    def parts(self, counts: Mapping[str, tuple[int, int]]) -> None:
        if not self._tasks:  # the whole comes first, its parts below it
            return
        for name in [name for name in self._parts if name not in counts]:
            self._progress.remove_task(self._parts.pop(name))
        for name, (done, total) in counts.items():
            if name not in self._parts:
                self._parts[name] = self._progress.add_task(f"  {printable(name)}", total=total, status="")
            self._progress.update(self._parts[name], completed=done)

    def close(self) -> None:
        self._waiting.stop()
        self._progress.stop()
