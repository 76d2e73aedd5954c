"""Peak memory by the system's own count, held against calls that allocate what they say."""

import functools
import sys

import pytest
import torch

from aligncli.analysis.bench.memory import MemoryMeter, num_bytes

MB = 1 << 20
ELEMENTS = MB // 4
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from Linux's /proc")
KEPT: list[torch.Tensor] = []


def build(scratch_mb, returned_mb, kept_mb=0):
    """A call with this many MB of each kind, all of it written to."""
    size = torch.ones(8 * ELEMENTS)  # an input

    def call():
        if kept_mb and not KEPT:
            KEPT.append(torch.ones(kept_mb * ELEMENTS))
        scratch = torch.ones(scratch_mb * ELEMENTS)
        returned = torch.ones(returned_mb * ELEMENTS)
        del scratch
        return [returned, size[:0]]

    return call


def build_without_torch(num_mb):
    """A call that allocates and fills memory which torch's allocator never sees."""

    def call():
        _ = bytearray(b"x") * (num_mb * MB)
        return []

    return call


@pytest.fixture(scope="module")
def meter():
    with MemoryMeter(device="cpu", num_threads=1) as meter:
        yield meter


@pytest.mark.parametrize(("scratch", "returned"), [(40, 8), (3, 64), (1, 0), (0, 30)])
def test_scratch_counts_and_what_is_returned_does_not(meter, scratch, returned):
    used = meter.measure(functools.partial(build, scratch, returned), functools.partial(build, 1, 1))
    assert used.peak == pytest.approx(scratch * MB, abs=MB)
    assert used.kept == pytest.approx(0, abs=MB)


def test_memory_that_torch_does_not_know_of_counts(meter):
    used = meter.measure(functools.partial(build_without_torch, 24), functools.partial(build_without_torch, 1))
    assert used.peak == pytest.approx(24 * MB, abs=MB)


def test_what_the_first_call_keeps_is_told_apart(meter):
    used = meter.measure(functools.partial(build, 2, 1, kept_mb=20), functools.partial(build, 1, 1))
    assert used.kept == pytest.approx(20 * MB, abs=MB)
    assert used.peak == pytest.approx(2 * MB, abs=MB)


def test_bytes_are_those_of_the_elements():
    storage = torch.zeros(1000)
    assert num_bytes([storage[:10], torch.zeros(3, dtype=torch.bfloat16)]) == 40 + 6


@pytest.mark.gpu
def test_cuda_counts_its_own_memory():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")

    def build_on_cuda():
        def call():
            scratch = torch.ones(40 * ELEMENTS, device="cuda")
            return [scratch[:ELEMENTS] * 2]

        return call

    with MemoryMeter(device="cuda", num_threads=1) as meter:
        used = meter.measure(build_on_cuda, build_on_cuda)
    assert (used.peak, used.kept) == (40 * MB, 0)
