"""The paper's schedule and the small-scale one, step by step."""

import pytest
import torch

from aligncli.config import AdamWConfig, OneCycleConfig, ScheduleConfig, SGDConfig, StepDecayConfig
from aligncli.engine.schedule import build_optimizer, build_scheduler, scaled_lr
from aligncli.errors import RecipeError


def rates(schedule, optimizer_config):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(optimizer_config, [("x", parameter)], batch_size=schedule.batch_size)
    scheduler = build_scheduler(schedule, optimizer)
    seen = []
    for _ in range(schedule.iterations):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_paper_s_rate_warms_up_for_500_steps_and_drops_at_60k_and_80k():
    schedule = ScheduleConfig(iterations=900, decay=StepDecayConfig(warmup_iterations=5))
    seen = rates(schedule, SGDConfig())
    assert seen[0] == pytest.approx(0.01 / 3)
    assert seen[5:600] == pytest.approx([0.01] * 595)
    assert seen[600:800] == pytest.approx([0.001] * 200)  # 60k of 90k, in hundredths
    assert seen[800:] == pytest.approx([0.0001] * 100)
    assert ScheduleConfig().iterations == 90_000
    assert ScheduleConfig().decay.warmup_iterations == 500


def test_one_cycle_peaks_after_the_warm_up_and_ends_near_zero():
    seen = rates(ScheduleConfig(iterations=100, batch_size=8, decay=OneCycleConfig(warmup_fraction=0.1)), AdamWConfig())
    assert max(range(100), key=seen.__getitem__) == pytest.approx(10, abs=1)
    assert max(seen) == pytest.approx(2e-3, rel=1e-2)
    assert seen[-1] < 1e-5


@pytest.mark.parametrize(("iterations", "warmup_fraction"), [(9, 0.1), (3, 0.25), (1, 0.5)])
def test_a_warm_up_may_end_with_the_first_step(iterations, warmup_fraction):
    decay = OneCycleConfig(warmup_fraction=warmup_fraction)
    seen = rates(ScheduleConfig(iterations=iterations, batch_size=8, decay=decay), AdamWConfig())
    assert len(seen) == iterations
    assert max(seen) <= 2e-3 * (1 + 1e-6)
    assert seen[0] == pytest.approx(2e-3 / 25)


def test_the_rate_is_proportional_to_the_batch():
    assert scaled_lr(SGDConfig(), 16) == 0.01
    assert scaled_lr(SGDConfig(), 2) == pytest.approx(0.00125)


def test_frozen_parameters_are_not_optimised():
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    free = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(SGDConfig(), [("frozen", frozen), ("free", free)], batch_size=16)
    assert optimizer.param_groups[0]["params"] == [free]


def test_parts_of_a_model_can_learn_at_rates_of_their_own():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    part = AdamWConfig(lr=0.1, reference_batch=8, lr_factors={"2.": 0.5, "1.weight": 0.25})
    optimizer = build_optimizer(part, model.named_parameters(), batch_size=8)
    rates = {id(x): group["lr"] for group in optimizer.param_groups for x in group["params"]}
    found = {name: rates[id(x)] for name, x in model.named_parameters()}
    assert found == pytest.approx(
        {"0.weight": 0.1, "0.bias": 0.1, "1.weight": 0.025, "1.bias": 0.1, "2.weight": 0.05, "2.bias": 0.05}
    )


def test_a_factor_for_nothing_is_refused():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(RecipeError, match=r"optimizer.lr_factors names 'bakcbone', which no parameter .* begins with"):
        build_optimizer(SGDConfig(lr_factors={"bakcbone": 0.1}), model.named_parameters(), batch_size=16)


@pytest.mark.parametrize("order", [("0.", "0.bias"), ("0.bias", "0.")])
def test_of_prefixes_the_longest_counts(order):
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    factors = {"0.": 0.5, "0.bias": 0.25}
    part = SGDConfig(lr=1.0, reference_batch=8, lr_factors={prefix: factors[prefix] for prefix in order})
    optimizer = build_optimizer(part, model.named_parameters(), batch_size=8)
    rates = {id(x): group["lr"] for group in optimizer.param_groups for x in group["params"]}
    found = {name: rates[id(x)] for name, x in model.named_parameters()}
    assert found == {"0.weight": 0.5, "0.bias": 0.25, "1.weight": 1.0, "1.bias": 1.0}


def test_one_factor_for_all_leaves_none_at_the_first_rate():
    part = SGDConfig(lr=1.0, reference_batch=8, lr_factors={"": 0.5})
    optimizer = build_optimizer(part, torch.nn.Linear(1, 1).named_parameters(), batch_size=8)
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(0, 1.0), (2, 0.5)]
    optimizer.step()
