"""Chunks of locations that span levels."""

from hypothesis import given
from hypothesis import strategies as st

from aligncli.ops.chunking import split_into_chunks


@given(counts=st.lists(st.integers(0, 40), max_size=6), chunk_size=st.integers(1, 50))
def test_every_location_is_in_one_chunk_in_order(counts, chunk_size):
    chunks = list(split_into_chunks(counts, chunk_size))
    seen = [(part.level, part.first + row) for parts in chunks for part in parts for row in range(part.count)]
    assert seen == [(level, row) for level, count in enumerate(counts) for row in range(count)]
    sizes = [sum(part.count for part in parts) for parts in chunks]
    assert all(size == chunk_size for size in sizes[:-1])
    assert all(0 < size <= chunk_size for size in sizes)
