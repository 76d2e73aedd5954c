"""The locations of several levels as one sequence, cut into chunks: small levels share a matrix product.

Locations are counted level-major and image-major within, the order of the operator's rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Consecutive locations of one level."""

    level: int
    first: int  # of them, in the level
    count: int


def split_into_chunks(num_locations: Sequence[int], chunk_size: int) -> Iterator[list[Part]]:
    """Every location of every level once, in order, `chunk_size` at a time; the last chunk may be smaller."""
    parts: list[Part] = []
    room = chunk_size
    for level, count in enumerate(num_locations):
        first = 0
        while first < count:
            part = Part(level, first, min(room, count - first))
            parts.append(part)
            first += part.count
            room -= part.count
            if room == 0:
                yield parts
                parts, room = [], chunk_size
    if parts:
        yield parts
