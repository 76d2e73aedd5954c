"""Losses are looked at now and then, and the first step that broke is found among those since the last look."""

import math

import pytest
import torch

from aligncli.engine.loss_watch import LossWatch, NotFiniteError, Snapshot, detached


class Steps:
    """A training whose only state is how many steps it took."""

    def __init__(self, *, scaled: bool = False) -> None:
        self.iteration = 0
        self.snapshots = 0
        self.watch = LossWatch(self.snapshot, scaled=scaled)

    def snapshot(self) -> Snapshot:
        self.snapshots += 1
        return Snapshot(self.iteration, {}, {})

    def take(self, value: float, *, norm: float = 1.0) -> None:
        self.iteration += 1
        losses = {"a": torch.tensor(value), "b": torch.tensor([2.0]), "grad_norm": torch.tensor(norm)}
        self.watch.add(losses, lr=self.iteration / 10)


def test_a_look_gives_the_newest_steps_losses_and_their_sum():
    steps = Steps()
    for value in (1.0, 4.0):
        steps.take(value)
    assert steps.watch.look() == {"loss": 6.0, "a": 4.0, "b": 2.0, "grad_norm": 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_broken_step_is_named_with_all_losses_since_the_last_look(bad):
    steps = Steps()
    for value in (1.0, 2.0):
        steps.take(value)
    steps.watch.look()
    for value in (3.0, bad, math.nan, math.nan):
        steps.take(value)
    with pytest.raises(NotFiniteError) as broken:
        steps.watch.look()
    step = broken.value.step
    assert (step.iteration, step.before.iteration) == (4, 2)
    assert step.describe() == f"a loss is {bad} at iteration 4 (lr 0.4)"
    assert step.rates == (0.3, 0.4)
    assert [losses["a"] for losses in step.losses[:1]] == [3.0]
    assert steps.snapshots == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_breaks_a_step_unless_fp16_skips_it(bad):
    steps = Steps()
    steps.take(1.0, norm=bad)
    with pytest.raises(NotFiniteError, match=f"grad_norm is {bad} at iteration 1"):
        steps.watch.look()
    skipped = Steps(scaled=True)
    skipped.take(1.0, norm=bad)
    assert skipped.watch.look()["loss"] == 3.0
    skipped.take(bad, norm=bad)
    with pytest.raises(NotFiniteError, match=f"a loss is {bad}"):
        skipped.watch.look()


def test_a_detached_state_stays_as_it_was():
    weight = torch.ones(2, requires_grad=True)
    state = {"a": [weight, (weight, 1)], "b": None}
    copy = detached(state)
    with torch.no_grad():
        weight.zero_()
    assert copy["a"][0].tolist() == copy["a"][1][0].tolist() == [1.0, 1.0]
    assert copy["a"][1][1] == 1
    assert copy["b"] is None
