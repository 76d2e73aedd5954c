"""Tables as rich draws them, and numbers in them as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from aligncli.plain import printable

# Characters that a name keeps on a line, however narrow the terminal is: in a whole table, and in one that is split
MIN_NAME, SPLIT_NAME = 12, 25


class Styled(NamedTuple):
    """A cell of a table in a colour of its own, such as "green"; "" is none. What it says must not rest on it."""

    text: str
    style: str


Cell = str | Styled


def number(value: float, digits: int = 1) -> str:
    """A metric for people; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """A difference of metrics for people; a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:+.1f}"


def fitted_tables(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str, text: Container[int], width: int
) -> list[Table]:
    """One table, whose columns with a number in `text` hold text, which is wrapped; numbers are never cut.

    Where `width` characters are too few, names in the first column are broken between their parts; where that is
    not enough, further tables with the same names have the columns that were left over.
    """
    header = [Text("\n".join(map(printable, column.split("\n")))) for column in columns]  # a caller may wrap it
    lines = [header, *([_text(cell) for cell in row] for row in rows)]
    widths = [max(_least_width(line[at], whole=at not in text) for line in lines) for at in range(len(columns))]
    beyond = _table_width(widths) - width
    if beyond <= 0:
        return [_table(lines, title=title, text=text)]
    room = max(MIN_NAME, widths[0] - beyond)
    if _table_width([room, *widths[1:]]) <= width:
        return [_table([[_broken(first, room), *rest] for first, *rest in lines], title=title, text=text)]
    widths[0] = min(SPLIT_NAME, max(_least_width(first, whole=True) for first, *_ in lines))
    lines = [[_broken(first, widths[0]), *rest] for first, *rest in lines]
    parts = list(_split(widths, text, width))
    return [
        _table(
            [[line[at] for at in part] for line in lines],
            title=title if part is parts[0] else "",
            text={number for number, at in enumerate(part) if at in text},
        )
        for part in parts
    ]


def grid(fields: Mapping[str, str]) -> Table:
    """Names and values in two columns."""
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="cyan", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in fields.items():
        drawn.add_row(_text(name), _text(value))
    return drawn


def _table(lines: Iterable[Sequence[Text]], *, title: str, text: Container[int]) -> Table:
    """The first line is the header."""
    header, *rows = lines
    table = Table(title=_text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for at, column in enumerate(header):
        how: Any = {"justify": "left"} if at in text else {"justify": "right", "no_wrap": True}
        table.add_column(column, overflow="fold", **how)
    for row in rows:
        table.add_row(*row)
    return table


def _split(widths: Sequence[int], text: Container[int], width: int) -> Iterator[list[int]]:
    """Columns of tables that fit, each with the columns of text that the whole table begins with."""
    names = list(takewhile(lambda at: at in text, range(len(widths))))
    part = list(names)
    for at in range(len(names), len(widths)):
        if len(part) > len(names) and _table_width([widths[each] for each in (*part, at)]) > width:
            yield part
            part = list(names)
        part.append(at)
    yield part


def _table_width(widths: Sequence[int]) -> int:
    """Each column has a space on both sides, and the frame one between columns and at both ends."""
    return sum(widths) + 3 * len(widths) + 1


def _least_width(cell: Text, *, whole: bool) -> int:
    """Of a cell whose lines, or else whose words, are not broken."""
    pieces = cell.plain.split("\n") if whole else cell.plain.split()
    return max(map(cell_len, pieces), default=0)


def _broken(name: Text, room: int) -> Text:
    """A name of more than `room` characters on several lines, each of which ends behind a `-`, `_` or `/`."""
    lines = [""]
    for part in re.findall(r"[^-_/ ]*[-_/ ]*", name.plain):
        if lines[-1] and cell_len(lines[-1] + part) > room:
            lines.append("")
        lines[-1] += part
    return Text("\n".join(lines), name.style)


def _text(cell: Cell) -> Text:
    return Text(printable(cell.text), cell.style) if isinstance(cell, Styled) else Text(printable(cell))
