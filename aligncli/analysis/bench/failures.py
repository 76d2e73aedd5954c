"""Contenders that cannot take part: said in their results, while the others are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from aligncli.analysis.bench.fairness import Progress
from aligncli.errors import UserError, first_line

Prepared = TypeVar("Prepared")


class WrongAnswerError(Exception):
    """A contender ran, and computed something else than it should."""


@dataclass(frozen=True)
class Failure:
    """Why a contender is not timed; `is_wrong`: it ran, and made no sense."""

    reason: str
    is_wrong: bool = False


def prepare_each(
    names: Iterable[str], prepare: Callable[[str], Prepared], progress: Progress
) -> tuple[dict[str, Prepared], dict[str, Failure]]:
    """What `prepare` made of each name, and why it failed for the others; progress is told under "preparing"."""
    prepared: dict[str, Prepared] = {}
    failures: dict[str, Failure] = {}
    all_names = list(names)
    for done, name in enumerate(all_names, start=1):
        found = _try(lambda name=name: prepare(name))
        if isinstance(found, Failure):
            failures[name] = found
        else:
            prepared[name] = found
        progress("preparing", done, len(all_names))
    return prepared, failures


def _try(prepare: Callable[[], Prepared]) -> Prepared | Failure:
    """Torch's errors are failures: no memory, no such type."""
    try:
        return prepare()
    except WrongAnswerError as error:
        return Failure(str(error), is_wrong=True)
    except UserError as error:
        return Failure(str(error))
    except RuntimeError as error:
        return Failure(f"{type(error).__name__}: {first_line(error)}")
