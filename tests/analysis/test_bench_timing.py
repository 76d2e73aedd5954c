"""Interleaving, planning and medians, on a clock that the tests wind."""

import gc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncli.analysis.bench.timing import FEWEST_RUNS, Spread, Timer, interleave, plan_counts, plan_rounds


class FakeClock:
    """Stands still but for those who say how long they take; CPU time runs at half speed."""

    def __init__(self):
        self.now = 100.0
        self.log = []

    def contender(self, name, seconds):
        def call():
            self.log.append(name)
            self.now += seconds
            return name

        return call

    def timer(self, **options):
        return Timer(wall=lambda: self.now, cpu=lambda: self.now / 2, **options)


def test_contenders_take_turns():
    clock = FakeClock()
    contenders = {name: clock.contender(name, 1.0) for name in "ABC"}
    interleave(contenders, runs=4, seconds=1e6, timer=clock.timer())
    assert "".join(clock.log) == "ABC" * 4


def test_samples_are_wall_and_cpu_seconds_of_a_call_by_round():
    clock = FakeClock()
    contenders = {"quick": clock.contender("quick", 0.25), "slow": clock.contender("slow", 2.0)}
    samples = interleave(contenders, runs=3, seconds=1e6, timer=clock.timer())
    assert [(sample.round, sample.wall, sample.cpu) for sample in samples["quick"]] == [
        (0, 0.25, 0.125),
        (1, 0.25, 0.125),
        (2, 0.25, 0.125),
    ]
    assert [sample.wall for sample in samples["slow"]] == [2.0] * 3


def test_the_slow_get_fewer_turns_evenly_spread_and_the_budget_is_kept():
    clock = FakeClock()
    contenders = {"quick": clock.contender("q", 1.0), "slow": clock.contender("S", 10.0)}
    samples = interleave(contenders, runs=20, seconds=70, timer=clock.timer())
    assert (len(samples["quick"]), len(samples["slow"])) == (20, 5)
    assert clock.now - 100 == 20 * 1 + 5 * 10
    assert "".join(clock.log) == "qSqqqqSqqqqSqqqqSqqqqSqqq"


def test_a_device_is_waited_for_before_and_after_and_short_calls_are_repeated():
    clock = FakeClock()
    pending = []

    def launch():
        pending.append(0.5)

    def synchronize():
        clock.now += sum(pending)
        pending.clear()

    timer = clock.timer(synchronize=synchronize, shortest=1.8)
    [*samples] = interleave({"kernel": launch}, runs=2, seconds=100, timer=timer)["kernel"]
    assert [sample.wall for sample in samples] == [0.5, 0.5]
    assert clock.now - 100 == 0.5 * (1 + 2 * 4)  # one to learn the duration, then 4 calls a sample


def test_progress_counts_calls_up_to_the_planned_total():
    clock = FakeClock()
    told = []
    contenders = {"quick": clock.contender("quick", 1.0), "slow": clock.contender("slow", 100.0)}
    interleave(contenders, runs=5, seconds=10, timer=clock.timer(), report=lambda *progress: told.append(progress))
    assert [done for done, _ in told] == list(range(1, 9))
    assert told[-1] == (8, 8)


def test_no_garbage_is_collected_in_between():
    states = []
    interleave({"probe": lambda: states.append(gc.isenabled())}, runs=3, seconds=1, timer=Timer())
    assert states == [False] * 3
    assert gc.isenabled()


def test_all_run_as_often_as_asked_where_the_budget_allows_it():
    assert plan_counts([1.0, 2.0, 3.0], runs=10, seconds=60.0) == [10, 10, 10]


def test_what_the_quick_leave_over_goes_to_the_slow():
    assert plan_counts([0.1, 4.0, 4.0], runs=10, seconds=41.0) == [10, 5, 5]


def test_fewest_runs_hold_without_any_time_and_runs_hold_with_plenty():
    assert plan_counts([1.0, 5.0], runs=10, seconds=0.0) == [FEWEST_RUNS, FEWEST_RUNS]
    assert plan_counts([1.0, 5.0], runs=2, seconds=0.0) == [2, 2]


@given(
    st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8),
    st.integers(1, 40),
    st.floats(0, 1e4),
)
def test_plans_keep_the_budget_beyond_the_fewest_runs(durations, runs, seconds):
    counts = plan_counts(durations, runs=runs, seconds=seconds)
    assert all(min(FEWEST_RUNS, runs) <= count <= runs for count in counts)
    by_choice = sum(count * duration for count, duration in zip(counts, durations) if count > FEWEST_RUNS)
    assert by_choice <= seconds * (1 + 1e-9)
    slowest_first = [count for _, count in sorted(zip(durations, counts), reverse=True)]
    assert slowest_first == sorted(slowest_first)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_rounds_hold_as_many_turns_as_planned_evenly_spread(counts):
    rounds = plan_rounds(counts)
    assert rounds[0] == list(range(len(counts)))
    for index, count in enumerate(counts):
        turns = [number for number, members in enumerate(rounds) if index in members]
        assert len(turns) == count
        gaps = [later - earlier for earlier, later in pairwise(turns)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_spread_is_median_and_quartiles():
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.25, 1.5, 1.75)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_a_sample_of_a_slow_call_is_one_call(seconds):
    clock = FakeClock()
    assert clock.timer(shortest=0.2).calls_a_sample(clock.contender("x", seconds)) == 1
    assert Timer().calls_a_sample(pytest.fail) == 1
