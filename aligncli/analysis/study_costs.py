"""What the trainings of a study take, before they are run; those of the same network are estimated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from aligncli.analysis.bench.machine import threads as limited_to
from aligncli.analysis.estimate import Estimate, build_detector, count_iteration, estimate_training, time_iteration
from aligncli.config import Recipe

COSTLY = {"model", "input", "schedule", "optimizer", "ops"}  # of a recipe, what its time and memory depend on
Value = TypeVar("Value")
Told = Callable[[int, int], None]  # networks done, and in all


def estimate_trainings(
    recipes: Mapping[Path, Recipe], *, device: str, threads: int, progress: Told = lambda *_: None
) -> dict[Path, Estimate]:
    """An estimate a key.

    Args:
        threads: CPU threads that each training will have; 0 leaves torch's default.
    """
    with limited_to(threads or None):
        return _once_a_network(recipes, lambda recipe: estimate_training(recipe, device=device), progress)


def weigh_iterations(
    recipes: Mapping[Path, Recipe], *, timed: bool, progress: Told = lambda *_: None
) -> dict[Path, float]:
    """What an iteration of each takes, compared with the others' alone, a key.

    FLOPs say it within a factor of 2.4 for the small networks on a CPU, and cost a fifth of a second a network;
    seconds do better, and cost two training steps a network.

    Args:
        timed: seconds on this CPU. Else FLOPs: for other machines, and for GPUs, of whose memory timing keeps some.
    """

    def weigh(recipe: Recipe) -> float:
        detector = build_detector(recipe)
        if not timed:
            return float(count_iteration(detector, recipe))
        return time_iteration(detector, recipe, device="cpu", steps=1).seconds

    return _once_a_network(recipes, weigh, progress)


def _once_a_network(
    recipes: Mapping[Path, Recipe], estimate: Callable[[Recipe], Value], progress: Told
) -> dict[Path, Value]:
    """What `estimate` makes of each; recipes that differ in seed and data alone share it."""
    made: dict[str, Value] = {}
    networks = {key: recipe.model_dump_json(include=COSTLY) + recipe.data.kind for key, recipe in recipes.items()}
    total = len(set(networks.values()))
    for key, network in networks.items():
        if network not in made:
            progress(len(made), total)
            made[network] = estimate(recipes[key])
    if total:
        progress(total, total)
    return {key: made[network] for key, network in networks.items()}
