"""A batch that does not fit is run in parts: the same outputs, and one line about it."""

import pytest
import torch

from aligncli.engine.fitting import FittingForward, is_out_of_memory
from aligncli.errors import TrainingError


class Limited:
    """A forward pass that takes `limit` images at once, and runs out of memory with more."""

    def __init__(self, limit, error=None):
        self.limit, self.sizes = limit, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    def __call__(self, images):
        if len(images) > self.limit:
            raise self.error
        self.sizes.append(len(images))
        return [{"boxes": image + 1} for image in images]


def batch(count):
    return [torch.tensor(float(number)) for number in range(count)]


@pytest.mark.parametrize(("limit", "sizes"), [(8, [8, 8]), (5, [4, 4, 4, 4]), (1, [1] * 16)])
def test_parts_are_halved_until_they_fit_and_stay_so(limit, sizes):
    told = []
    limited = Limited(limit)
    forward = FittingForward(limited, told.append)
    for _ in range(2):
        outputs = forward(batch(8))
        assert [float(output["boxes"]) for output in outputs] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert limited.sizes == sizes
    assert len(told) == {8: 0, 5: 1, 1: 3}[limit]
    assert all(line.startswith("out of memory with") for line in told)


def test_one_image_that_does_not_fit_ends_in_one_line():
    with pytest.raises(TrainingError, match=r"one image alone does not fit .*: lower input.max_short_side \(CUDA out"):
        FittingForward(Limited(0), lambda _: None)(batch(4))


def test_other_errors_are_passed_on():
    with pytest.raises(RuntimeError, match="shapes differ"):
        FittingForward(Limited(0, RuntimeError("shapes differ")), lambda _: None)(batch(2))


def test_the_machine_s_own_memory_counts_too():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
