"""Every random stream goes on where it stood."""

import io
import random

import numpy as np
import pytest
import torch

from aligncli.engine.random_state import random_state, restore_random_state, seed_everything


@pytest.fixture(autouse=True)
def streams_of_other_tests():
    before = random_state("cpu")
    yield
    restore_random_state(before, "cpu")


def draw() -> tuple[float, ...]:
    return (
        torch.rand(()).item(),
        torch.randn(()).item(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),  # noqa: NPY002
        np.random.randn(),  # noqa: NPY002
    )


def test_a_seed_starts_every_stream_and_a_saved_state_goes_on_with_it():
    seed_everything(7)
    first = draw()  # a normal draw leaves its twin for the next one
    file = io.BytesIO()
    torch.save(random_state("cpu"), file)
    expected = draw()
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True), "cpu")
    assert draw() == expected
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert not set(draw()) & set(first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_devices_own_stream_goes_on_too():
    seed_everything(7)
    torch.rand((), device="cuda")
    state = random_state("cuda")
    expected = torch.rand(3, device="cuda").tolist()
    restore_random_state(state, "cuda")
    assert torch.rand(3, device="cuda").tolist() == expected
    restore_random_state(state, "cpu")  # a run that goes on on the CPU
