"""The training loop, from a recipe to a finished run folder; the steps themselves are in trainer.py."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aligncli.build import NO_PARTS, Parts
from aligncli.config import Recipe, ScheduleConfig
from aligncli.data.dataset import DetectionDataset
from aligncli.data.loader import train_loader
from aligncli.engine.best import keep_best
from aligncli.engine.bundle import stop_with_bundle
from aligncli.engine.checkpoint import save_checkpoint
from aligncli.engine.distributed import ALONE, World
from aligncli.engine.evaluate import evaluate_detector, write_evaluation
from aligncli.engine.faults import Elsewhere
from aligncli.engine.inference import LoadedRun
from aligncli.engine.interrupt import Interrupted, StopRequest, stop_on_signal
from aligncli.engine.loss_watch import LossWatch, NotFiniteError
from aligncli.engine.memory import peak_memory
from aligncli.engine.progress_file import kept_for_watchers
from aligncli.engine.reporter import Reporter, SilentReporter, StoppableEvaluation
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.schedule import describe_lr
from aligncli.engine.set_up import set_up
from aligncli.engine.speed import Speed
from aligncli.engine.trainer import Trainer
from aligncli.errors import TrainingError, UserError, first_line


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
    world: World = ALONE,
) -> TrainResult:
    """Train the recipe's model into `run_dir`, evaluate it on the validation split and write the results.

    Args:
        resume: go on from the newest checkpoint in `run_dir`, whose recipe must be this one.
        download: allow ImageNet weights to be fetched.
        parts: the user's own that the recipe names (CustomConfig).
        world: the processes that train together, each with this call; `run_dir` is on a disk that all see.

    Raises UserErrors for bad input, and Interrupted after SIGINT or SIGTERM, once a checkpoint is saved.
    """
    started = time.monotonic()
    reporter = reporter if reporter and world.is_main else SilentReporter()
    run = RunFolder(run_dir)
    with ExitStack() as held:
        trainer, train_set, val_set = set_up(
            recipe,
            run,
            device=device,
            resume=resume,
            download=download,
            parts=parts,
            reporter=reporter,
            held=held,
            world=world,
        )
        trainer.join()
        reporter.message(describe_lr(recipe.optimizer, recipe.schedule.batch_size))
        known_notes = train_set.notes()
        for note in known_notes:
            reporter.message(note)
        with kept_for_watchers(run, reporter) if world.is_main else nullcontext(reporter) as reporter:
            try:
                metrics = _run_and_evaluate(trainer, run, train_set, val_set, reporter)
                for note in train_set.notes():
                    if note not in known_notes:
                        reporter.message(note)
            finally:
                reporter.finish()
    return TrainResult(run_dir, metrics, time.monotonic() - started, trainer.iteration)


def _run_and_evaluate(
    trainer: Trainer, run: RunFolder, train_set: DetectionDataset, val_set: DetectionDataset, reporter: Reporter
) -> dict[str, float]:
    """All iterations and the last evaluation. Raises Interrupted, TrainingError."""
    world, device = trainer.world, trainer.device
    try:
        with stop_on_signal() as request:
            _run(trainer, run, train_set, val_set, reporter, request)
            return _evaluate(trainer, run, val_set, reporter, request)
    except NotFiniteError as broken:
        with world.together():
            if world.is_main:
                raise stop_with_bundle(run, trainer.recipe, broken.step, train_set, device=device) from broken
        raise  # never: together, all left
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory on {device}: lower schedule.batch_size, or raise schedule.accumulate to split it, "
            f"each part normalised by its own positives ({first_line(error)})"
        ) from error


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
    world = trainer.world
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
            rank=world.rank,
            num_ranks=world.size,
            pin_memory=torch.device(trainer.device).type == "cuda",
        )
    )
    speed = Speed()
    watch = LossWatch(trainer.snapshot, scaled=trainer.scaler.is_enabled())
    evaluates_first = is_evaluated_after(schedule, first) and not run.is_evaluated(first)  # stopped before it did
    if world.largest(int(evaluates_first)):
        _evaluate(trainer, run, val_set, reporter, request)
    while trainer.iteration < schedule.iterations:
        lr = float(trainer.scheduler.get_last_lr()[0])
        with speed.step():
            with kept_at_a_fault(trainer, run, watch, reporter), world.together():
                parts = [next(batches) for _ in range(schedule.accumulate)]
            watch.add(trainer.step(iter(parts)), lr=lr)
            iteration, last = trainer.iteration, trainer.iteration == schedule.iterations
            stopped = world.largest(request.signal_number or 0)
            evaluated = is_evaluated_after(schedule, iteration)
            saving = last or stopped > 0 or evaluated or iteration % schedule.checkpoint_every == 0
            record = {"iteration": iteration, "lr": lr}
            if saving or iteration % schedule.log_every == 0:
                record |= watch.look()  # waits for the device
        if iteration % schedule.log_every == 0 or last:
            append_metrics(run, record, world)
        told = speed.told(batch_size=schedule.batch_size, left=schedule.iterations - iteration)
        reporter.step(record | told | {"memory": peak_memory(trainer.device)})
        if saving:
            trainer.save(run)
        if stopped:
            with world.together():
                raise Interrupted(run.root, iteration, stopped)
        if evaluated:
            _evaluate(trainer, run, val_set, reporter, request)


@contextmanager
def kept_at_a_fault(trainer: Trainer, run: RunFolder, watch: LossWatch, reporter: Reporter) -> Iterator[None]:
    """Data that cannot be read end a training, and lose nothing of it: what it has reached is saved first."""
    try:
        yield
    except (UserError, OSError, Elsewhere):
        if trainer.world.is_main and trainer.iteration > run.newest_checkpoint():
            with suppress(NotFiniteError):  # which is no state to go on from
                watch.look()
                save_checkpoint(run, trainer.model, iteration=trainer.iteration, state=trainer.state())
                reporter.message(
                    f"after iteration {trainer.iteration}, a checkpoint is saved: --resume goes on from it"
                )
        raise


def is_evaluated_after(schedule: ScheduleConfig, iteration: int) -> bool:
    """Whether an evaluation between iterations belongs after this one."""
    return 0 < iteration < schedule.iterations and schedule.eval_every > 0 and iteration % schedule.eval_every == 0


def _evaluate(
    trainer: Trainer, run: RunFolder, dataset: DetectionDataset, reporter: Reporter, request: StopRequest
) -> dict[str, float]:
    """Evaluate and write it down. Raises Interrupted: all is saved, and a resumed run evaluates here again."""
    detector = LoadedRun.of(trainer.recipe, trainer.model, dataset.categories)
    stoppable = StoppableEvaluation(reporter, request, run_dir=run.root, iteration=trainer.iteration)
    world = trainer.world
    evaluation = evaluate_detector(detector, dataset, device=trainer.device, reporter=stoppable, world=world)
    with world.together():
        if world.is_main:
            write_evaluation(run, evaluation)
            if trainer.recipe.schedule.eval_every:
                keep_best(run, trainer.model, evaluation.metrics, iteration=trainer.iteration)
    append_metrics(run, {"iteration": trainer.iteration, "evaluation": evaluation.metrics}, world)
    reporter.evaluated(iteration=trainer.iteration, metrics=evaluation.metrics)
    return evaluation.metrics


def append_metrics(run: RunFolder, record: Mapping[str, Any], world: World) -> None:
    """Add a line to metrics.jsonl, on rank 0; the others wait for it."""
    with world.together():
        if world.is_main:
            run.append_metrics(record)
