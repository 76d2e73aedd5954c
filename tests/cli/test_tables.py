"""However narrow a terminal is, no number is cut and every row can be told."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aligncli.cli.tables import MIN_NAME, fitted_tables

RUN = "aligndet_small-dpm0.5_adm0.7-a266b193-s0"
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def printed(width: int, columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_text: int = 1) -> list[str]:
    """The tables' lines, one after the other."""
    screen = io.StringIO()
    console = Console(file=screen, width=width)
    for table in fitted_tables(columns, rows, title="", text=range(num_text), width=width):
        console.print(table)
    return screen.getvalue().splitlines()


@given(
    width=st.integers(40, 140),
    numbers=st.lists(st.lists(st.sampled_from(["1.0", "42.7 ±2.8", "-", "1,500 of 90,000"]), min_size=6, max_size=6)),
    num_text=st.integers(1, 2),
)
def test_no_number_is_cut(width: int, numbers: list[list[str]], num_text: int) -> None:
    rows = [(RUN, "ours", *cells) for cells in numbers]
    lines = printed(width, ("run", "", *METRICS), rows, num_text=num_text)
    text = "\n".join(lines)
    assert all(len(line) <= width for line in lines)
    for cell in ("42.7 ±2.8", "1,500 of 90,000"):
        assert text.count(cell) == sum(row.count(cell) for row in rows)
    for metric in METRICS:
        assert sum(line.split().count(metric) for line in lines) == 1


def test_where_there_is_room_there_is_one_table_in_which_nothing_is_broken() -> None:
    lines = printed(120, ("run", *METRICS), [(RUN, *["1.0"] * 6), ("b", *["2.0"] * 6)])
    assert [line.split() for line in lines if "." in line] == [[RUN, *["1.0"] * 6], ["b", *["2.0"] * 6]]


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        (RUN, ["aligndet_small-", "dpm0.5_adm0.7-", "a266b193-s0"]),
        ("a name of some words_and-then-more", ["a name of some", "words_and-then-", "more"]),
        ("runs/below/aligndet", ["runs/below/", "aligndet"]),
    ],
)
def test_long_names_are_broken_between_their_parts(name: str, pieces: list[str]) -> None:
    lines = printed(52, ("run", *["a number"] * 3), [(name, *["1.0"] * 3)])
    assert [line[2:18].strip() for line in lines[3:] if line.strip()] == pieces


def test_what_does_not_fit_goes_on_in_a_table_with_the_same_names() -> None:
    names = ("(a) Conv", "(b) Deform Conv")
    lines = printed(64, ("", "", *METRICS), [(name, "ours", *["42.7 ±2.8"] * 6) for name in names], num_text=2)
    for name in names:
        rows = [line for line in lines if name in line]
        assert len(rows) == 2
        assert sum(row.count("42.7 ±2.8") for row in rows) == 6
        assert all("ours" in row for row in rows)


def test_a_terminal_too_narrow_for_anything_still_tells_a_number() -> None:
    lines = printed(MIN_NAME + 12, ("run", "AP"), [(RUN, "42.7 ±2.8")])
    assert "42.7" in "\n".join(lines)
