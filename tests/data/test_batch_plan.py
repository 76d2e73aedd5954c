"""Every image comes as often as any other, in an order that seed and batch number alone decide."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aligncli.data.batch_plan import BatchPlan

SIZES = np.array([(20, 30)] * 7 + [(30, 20)] * 4)


@given(
    num_wide=st.integers(0, 20),
    num_tall=st.integers(0, 20),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**70),
    start=st.integers(0, 60),
)
def test_a_resumed_plan_goes_on_where_the_other_stopped(num_wide, num_tall, batch_size, seed, start):
    sizes = np.array([(1, 2)] * num_wide + [(2, 1)] * num_tall).reshape(-1, 2)
    if not len(sizes):
        return
    whole = BatchPlan(sizes, batch_size=batch_size, seed=seed, aspect_grouping=True)
    resumed = BatchPlan(sizes, batch_size=batch_size, seed=seed, aspect_grouping=True)
    expected = [whole.indices(batch) for batch in range(start + 10)][start:]
    assert [resumed.indices(batch) for batch in range(start, start + 10)] == expected
    assert all(len(batch) == batch_size for batch in expected)
    for batch in expected:
        assert len({bool(sizes[index, 1] >= sizes[index, 0]) for index in batch}) == 1


@given(num_tall=st.integers(0, 11), batch_size=st.integers(1, 15))
def test_every_image_comes_equally_often(num_tall, batch_size):
    sizes = np.array([(2, 1)] * num_tall + [(1, 2)] * (11 - num_tall))
    plan = BatchPlan(sizes, batch_size=batch_size, seed=0, aspect_grouping=True)
    seen = np.bincount([index for batch in range(11) for index in plan.indices(batch)], minlength=11)
    assert seen.tolist() == [batch_size] * 11


def test_epochs_are_shuffled_differently_and_by_seed():
    def epochs(seed):
        plan = BatchPlan(SIZES, batch_size=11, seed=seed, aspect_grouping=False)
        return [plan.indices(batch) for batch in range(4)]

    assert all(sorted(epoch) == list(range(11)) for epoch in epochs(0))
    assert len({tuple(epoch) for seed in range(3) for epoch in epochs(seed)}) == 12


def test_grouping_can_be_turned_off():
    plan = BatchPlan(SIZES, batch_size=11, seed=0, aspect_grouping=False)
    assert set(plan.indices(0)) == set(range(11))
