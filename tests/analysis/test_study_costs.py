"""What a study's trainings take: each network once, and an iteration of one against another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligncli.analysis import study_costs
from aligncli.analysis.estimate import BACKWARD_FACTOR, Iteration, estimate_training
from aligncli.analysis.study_costs import estimate_trainings, weigh_iterations
from tests.helpers import tiny_recipe

CHEAP, DEAR, BATCH = Path("cheap"), Path("dear"), Path("batch")


@pytest.mark.slow
def test_networks_that_cost_the_same_are_estimated_once() -> None:
    recipe = tiny_recipe("aligndet_small", {"schedule.iterations": 3})
    told = []
    made = estimate_trainings(
        {Path("a"): recipe, Path("b"): recipe.changed({"seed": 7, "data.train_seed": 9})},
        device="cpu",
        threads=1,
        progress=lambda *count: told.append(count),
    )
    assert made[Path("a")] == made[Path("b")]
    assert made[Path("a")].seconds > 0
    assert told == [(0, 1), (1, 1)]


@pytest.mark.parametrize("timed", [False, True])
def test_an_iteration_weighs_what_its_network_and_batch_cost(timed: bool) -> None:
    recipe = tiny_recipe("aligndet_small", {"schedule.batch_size": 2})
    dearer = recipe.changed({"model.adm.channels": 256, "model.adm.num_convs": 4})
    weights = weigh_iterations(
        {CHEAP: recipe, DEAR: dearer, BATCH: recipe.changed({"schedule.batch_size": 16})}, timed=timed
    )
    assert 0 < weights[CHEAP] < weights[DEAR]
    assert weights[CHEAP] < weights[BATCH]
    if not timed:
        assert weights[BATCH] == 8 * weights[CHEAP]


def test_operations_weigh_as_in_the_estimate_of_a_whole_training() -> None:
    """A RetinaNet, whose losses read nothing more than its forward pass counts."""
    recipe = tiny_recipe("retinanet_small", {"schedule.iterations": 7, "schedule.accumulate": 2})
    weight = weigh_iterations({CHEAP: recipe}, timed=False)[CHEAP]
    assert 7 * BACKWARD_FACTOR * weight == pytest.approx(estimate_training(recipe, device="cpu").flops)


def test_only_what_is_timed_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = []

    def time_iteration(*_: object, **options: object) -> Iteration:
        timings.append(options)
        return Iteration(flops=1.0, seconds=0.25)

    monkeypatch.setattr(study_costs, "time_iteration", time_iteration)
    recipes = {CHEAP: tiny_recipe("aligndet_small"), DEAR: tiny_recipe("aligndet_small", {"seed": 5})}
    assert weigh_iterations(recipes, timed=False)[CHEAP] > 1.0
    assert not timings
    assert weigh_iterations(recipes, timed=True) == {CHEAP: 0.25, DEAR: 0.25}
    assert timings == [{"device": "cpu", "steps": 1}]
