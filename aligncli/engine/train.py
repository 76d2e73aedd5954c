"""The training loop: one function a user calls, one class that holds what a step needs."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aligncli.build import NO_PARTS, Parts, build_datasets, build_model
from aligncli.config import Recipe, ScheduleConfig
from aligncli.data.dataset import DetectionDataset, require_same_categories
from aligncli.data.loader import train_loader
from aligncli.engine.checkpoint import load_checkpoint, restore_model, save_checkpoint
from aligncli.engine.evaluate import evaluate_detector, write_evaluation
from aligncli.engine.inference import LoadedRun, autocast, check_device, to_unit_range
from aligncli.engine.interrupt import Interrupted, StopRequest, stop_on_signal
from aligncli.engine.reporter import Reporter, SilentReporter
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.schedule import build_optimizer, build_scheduler, scaled_lr
from aligncli.engine.weights import initialize
from aligncli.errors import CheckpointError, RecipeError, TrainingError, first_line
from aligncli.plain import without_nan


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run lies and what it reached; metrics as in engine/metrics.py, percent."""

    run_dir: Path
    metrics: dict[str, float]
    seconds: float
    iterations: int


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    download: bool = False,
    parts: Parts = NO_PARTS,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Train the recipe's model into `run_dir`, evaluate it on the validation split and write the results.

    Args:
        resume: go on from the newest checkpoint in `run_dir`, whose recipe must be this one.
        download: allow ImageNet weights to be fetched.
        parts: the user's own that the recipe names (CustomConfig).

    Raises UserErrors for bad input, and Interrupted after SIGINT or SIGTERM, once a checkpoint is saved.
    """
    started = time.monotonic()
    reporter = reporter or SilentReporter()
    run = RunFolder(run_dir)
    _check_schedule(recipe.schedule)
    check_device(device, amp=recipe.schedule.amp)
    train_set, val_set = build_datasets(recipe)
    require_same_categories(train_set.categories, val_set.categories, source="validation annotations")
    known_notes = train_set.notes()
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, num_classes=len(train_set.categories.names), parts=parts)
    trainer = Trainer(recipe, model, device=device)
    if resume:
        trainer.restore(run)
    else:
        reporter.message(initialize(model, recipe, download=download, class_names=train_set.categories.names))
        run.create(recipe, train_set.categories, device=device)
    reporter.message(_describe_lr(recipe))
    for note in known_notes:
        reporter.message(note)
    try:
        with stop_on_signal() as request:
            _run(trainer, run, train_set, val_set, reporter, request)
        metrics = _evaluate(trainer, run, val_set, reporter)  # all is saved: here a signal simply ends the process
        for note in train_set.notes():
            if note not in known_notes:
                reporter.message(note)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory on {device}: lower schedule.batch_size, or raise schedule.accumulate to split it "
            f"({first_line(error)})"
        ) from error
    finally:
        reporter.finish()
    return TrainResult(run_dir, metrics, time.monotonic() - started, trainer.iteration)


class Trainer:
    """Model, optimizer, schedule and scaler, and where they stand."""

    def __init__(self, recipe: Recipe, model: nn.Module, *, device: str) -> None:
        schedule = recipe.schedule
        self.recipe = recipe
        self.device = device
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(recipe.optimizer, model.named_parameters(), batch_size=schedule.batch_size)
        self.scheduler = build_scheduler(schedule, self.optimizer)
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=schedule.amp == "fp16")
        self.iteration = 0

    def step(self, batches: Iterator[tuple[list[Tensor], list[Any]]]) -> dict[str, Tensor]:
        """One optimizer step over `schedule.accumulate` parts; returns the losses' means, still on the device."""
        schedule = self.recipe.schedule
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for _ in range(schedule.accumulate):
            images, targets = next(batches)
            with autocast(self.device, schedule.amp):
                losses = self.model([to_unit_range(image, self.device) for image in images], targets)
            parts = {name: loss / schedule.accumulate for name, loss in losses.items()}
            self.scaler.scale(sum(parts.values(), torch.zeros((), device=self.device))).backward()
            for name, part in parts.items():
                totals[name] = totals.get(name, 0.0) + part.detach()
        self.scaler.unscale_(self.optimizer)
        totals["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip_norm or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.iteration += 1
        return totals

    def save(self, run: RunFolder) -> None:
        """Write a checkpoint of everything that the next step depends on."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(run, self.model, iteration=self.iteration, state=state)

    def restore(self, run: RunFolder) -> None:
        """Go back to the newest checkpoint of `run`. Raises CheckpointError."""
        if run.read_recipe() != self.recipe:
            raise CheckpointError(
                f"{run.root} was trained with another recipe: resume it without recipe, --data, --seed or --set"
            )
        checkpoint = load_checkpoint(run, device=self.device)
        restore_model(self.model, checkpoint.weights, source=run.root)
        self.optimizer.load_state_dict(checkpoint.state["optimizer"])
        self.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self.scaler.load_state_dict(checkpoint.state["scaler"])
        torch.set_rng_state(checkpoint.state["rng"].cpu())
        self.iteration = checkpoint.iteration
        run.truncate_metrics(self.iteration, finished=self.iteration == self.recipe.schedule.iterations)


def _run(
    trainer: Trainer,
    run: RunFolder,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    reporter: Reporter,
    request: StopRequest,
) -> None:
    """All iterations with their checkpoints, and the evaluations between them. Raises Interrupted."""
    recipe, schedule, first = trainer.recipe, trainer.recipe.schedule, trainer.iteration
    reporter.start(
        iterations=schedule.iterations,
        first=first,
        recipe=recipe,
        num_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        num_images=len(train_set),
    )
    batches = iter(
        train_loader(
            train_set,
            recipe.input,
            batch_size=schedule.batch_size // schedule.accumulate,
            seed=recipe.seed,
            num_batches=schedule.iterations * schedule.accumulate,
            first_batch=first * schedule.accumulate,
        )
    )
    clock = time.monotonic()
    while trainer.iteration < schedule.iterations:
        lr = trainer.scheduler.get_last_lr()[0]
        losses = trainer.step(batches)
        iteration, last = trainer.iteration, trainer.iteration == schedule.iterations
        stopped = request.signal_number is not None
        saving = last or stopped or iteration % schedule.checkpoint_every == 0
        record = {"iteration": iteration, "lr": lr}
        if saving or iteration % schedule.log_every == 0:
            record |= _finite(losses, iteration)
        if iteration % schedule.log_every == 0 or last:
            run.append_metrics(record)
        rate = (iteration - first) / (time.monotonic() - clock)
        speed = {
            "images_per_second": rate * schedule.batch_size,
            "eta_seconds": (schedule.iterations - iteration) / rate,
        }
        reporter.step(record | speed)
        if saving:
            trainer.save(run)
        if stopped:
            raise Interrupted(run.root, iteration, request.signal_number or 0)
        if schedule.eval_every and iteration % schedule.eval_every == 0 and not last:
            _evaluate(trainer, run, val_set, reporter)


def _evaluate(trainer: Trainer, run: RunFolder, dataset: DetectionDataset, reporter: Reporter) -> dict[str, float]:
    detector = LoadedRun.of(trainer.recipe, trainer.model, dataset.categories)
    evaluation = evaluate_detector(detector, dataset, device=trainer.device, reporter=reporter)
    write_evaluation(run, evaluation)
    run.append_metrics({"iteration": trainer.iteration, "evaluation": without_nan(evaluation.metrics)})
    return evaluation.metrics


def _finite(losses: Mapping[str, Tensor], iteration: int) -> dict[str, float]:
    """The losses as numbers, with their sum. Raises TrainingError where one is NaN or infinite."""
    values = {name: float(value) for name, value in losses.items()}
    # A gradient that overflows is fp16 business as usual: its scaler skips the step.
    broken = [name for name, value in values.items() if name != "grad_norm" and not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"{', '.join(broken)} loss is not finite at iteration {iteration}: lower optimizer.lr, set "
            "schedule.clip_norm, or resume from the last checkpoint with another --seed"
        )
    return {"loss": sum(value for name, value in values.items() if name != "grad_norm")} | values


def _check_schedule(schedule: ScheduleConfig) -> None:
    if schedule.batch_size % schedule.accumulate:
        raise RecipeError(
            f"schedule.accumulate is {schedule.accumulate}: "
            f"expected a divisor of schedule.batch_size {schedule.batch_size}"
        )


def _describe_lr(recipe: Recipe) -> str:
    optimizer, batch_size = recipe.optimizer, recipe.schedule.batch_size
    rate = scaled_lr(optimizer, batch_size)
    if batch_size == optimizer.reference_batch:
        return f"lr: {rate:g} for {batch_size} images a step, as in the recipe"
    return (
        f"lr: {rate:g} = {optimizer.lr:g} x {batch_size}/{optimizer.reference_batch}, scaled from the recipe's "
        f"{optimizer.reference_batch} images a step to {batch_size}"
    )
