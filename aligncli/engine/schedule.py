"""Optimizers and learning-rate schedules, all of them torch's own."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, LRScheduler, MultiStepLR, OneCycleLR

from aligncli.config import AdamWConfig, OneCycleConfig, ScheduleConfig, SGDConfig, StepDecayConfig


def scaled_lr(optimizer: SGDConfig | AdamWConfig, batch_size: int) -> float:
    """The recipe's rate is for `reference_batch` images a step; it grows in proportion (Goyal et al. 2017)."""
    return optimizer.lr * batch_size / optimizer.reference_batch


def build_optimizer(part: SGDConfig | AdamWConfig, parameters: Iterable[nn.Parameter], *, batch_size: int) -> Optimizer:
    """SGD (the paper's) or AdamW (small scale) over the parameters that train."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    lr = scaled_lr(part, batch_size)
    match part:
        case SGDConfig():
            return SGD(trainable, lr=lr, momentum=part.momentum, weight_decay=part.weight_decay)
        case AdamWConfig():
            return AdamW(trainable, lr=lr, weight_decay=part.weight_decay)


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
            return OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=part.iterations + 1,  # the scheduler also steps after the last iteration
                pct_start=decay.warmup_fraction,
                cycle_momentum=False,
            )
