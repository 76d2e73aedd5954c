"""Optimizers and learning-rate schedules, all of them torch's own."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler, MultiStepLR, OneCycleLR

from aligncli.config import AdamWConfig, OneCycleConfig, ScheduleConfig, SGDConfig, StepDecayConfig
from aligncli.errors import RecipeError


def check_schedule(schedule: ScheduleConfig, *, num_ranks: int = 1) -> None:
    """Raises RecipeError where the images of a step cannot be shared equally by its parts and by processes."""
    if schedule.batch_size % schedule.accumulate:
        raise RecipeError(
            f"schedule.accumulate is {schedule.accumulate}: "
            f"expected a divisor of schedule.batch_size {schedule.batch_size}"
        )
    share = schedule.batch_size // schedule.accumulate
    if share % num_ranks:
        what = "schedule.batch_size" if schedule.accumulate == 1 else "schedule.batch_size / schedule.accumulate"
        raise RecipeError(
            f"{num_ranks} processes cannot share {share} images equally: expected a divisor of {what} {share}"
        )


def scaled_lr(optimizer: SGDConfig | AdamWConfig, batch_size: int) -> float:
    """The recipe's rate is for `reference_batch` images a step; it grows in proportion (Goyal et al. 2017)."""
    return optimizer.lr * batch_size / optimizer.reference_batch


def describe_lr(optimizer: SGDConfig | AdamWConfig, batch_size: int) -> str:
    """The rate that `scaled_lr` gives, in a line for people."""
    rate, reference = scaled_lr(optimizer, batch_size), optimizer.reference_batch
    if batch_size == reference:
        return f"lr: {rate:g} for {batch_size} images a step, as in the recipe"
    return (
        f"lr: {rate:g} = {optimizer.lr:g} x {batch_size}/{reference}, scaled from the recipe's {reference} images a "
        f"step to {batch_size}"
    )


def build_optimizer(
    part: SGDConfig | AdamWConfig, parameters: Iterable[tuple[str, nn.Parameter]], *, batch_size: int
) -> Optimizer:
    """SGD (the paper's) or AdamW (small scale) over the named parameters that train.

    Raises RecipeError where `lr_factors` names no such parameter.
    """
    lr = scaled_lr(part, batch_size)
    groups = parameter_groups(dict(parameters), part.lr_factors, lr)
    match part:
        case SGDConfig():
            return SGD(groups, lr=lr, momentum=part.momentum, weight_decay=part.weight_decay, fused=True)
        case AdamWConfig():
            return AdamW(groups, lr=lr, weight_decay=part.weight_decay, fused=True)


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], lr_factors: Mapping[str, float], lr: float
) -> list[dict[str, Any]]:
    """The parameters that train: first those of rate `lr`, then a group for each prefix with a factor.

    Of prefixes that begin a name the longest counts.
    """
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    for prefix in lr_factors:
        if not any(name.startswith(prefix) for name in trained):
            example = next(iter(trained), "none, as no parameter trains").rsplit(".", 1)[0]
            raise RecipeError(
                f"optimizer.lr_factors names {prefix!r}, which no parameter that trains begins with: "
                f"expected a prefix such as {example!r}"
            )
    chosen: dict[str | None, list[nn.Parameter]] = {None: [], **{prefix: [] for prefix in lr_factors}}
    for name, parameter in trained.items():
        fitting = [prefix for prefix in lr_factors if name.startswith(prefix)]
        chosen[max(fitting, key=len, default=None)].append(parameter)
    rest = {"params": chosen.pop(None)}
    return [rest, *({"params": chosen[prefix], "lr": lr * factor} for prefix, factor in lr_factors.items())]


def build_scheduler(part: ScheduleConfig, optimizer: Optimizer) -> LRScheduler:
    """Stepped once after every optimizer step."""
    decay = part.decay
    match decay:
        case StepDecayConfig():
            steps = [round(fraction * part.iterations) for fraction in decay.decay_at]
            schedulers: list[LRScheduler] = [MultiStepLR(optimizer, steps, gamma=decay.decay_factor)]
            if decay.warmup_iterations:
                warmup = LinearLR(optimizer, decay.warmup_factor, total_iters=decay.warmup_iterations)
                schedulers.append(warmup)
            return ChainedScheduler(schedulers, optimizer)
        case OneCycleConfig():
            total = part.iterations + 1  # the scheduler also steps after the last iteration
            # torch divides by zero where the warm-up ends with the first step: let it end a little later
            share = decay.warmup_fraction * (1 + 1e-9 if decay.warmup_fraction * total == 1 else 1)
            return OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=total,
                pct_start=share,
                cycle_momentum=False,
            )
