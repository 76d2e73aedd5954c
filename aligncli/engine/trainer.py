"""What one optimizer step needs and changes: model, optimizer, schedule, scaler, and where they stand."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aligncli.config import Recipe
from aligncli.engine.checkpoint import load_checkpoint, restore_model, save_checkpoint
from aligncli.engine.distributed import ALONE, World, unsynchronized
from aligncli.engine.inference import autocast, to_unit_range
from aligncli.engine.loss_watch import Snapshot, detached
from aligncli.engine.random_state import random_state, restore_random_state
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.schedule import build_optimizer, build_scheduler
from aligncli.errors import CheckpointError, TrainingError, first_line

LONE_VALUE = "Expected more than 1 value per channel"  # torch, of a batch norm without a variance to compute


class Trainer:
    """Takes the steps of a training, from its first one or from a saved state.

    In a world of several every rank has one, and between `join` and the end all do the same: each step is one of
    all ranks together, and rank 0 alone writes. `data` is the fingerprint of what it trains on, see data/dataset.py.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, *, device: str, world: World = ALONE, data: str = "") -> None:
        schedule = recipe.schedule
        self.recipe = recipe
        self.data = data
        self.device = device
        self.world = world
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.replica = self.model
        self.optimizer = build_optimizer(recipe.optimizer, model.named_parameters(), batch_size=schedule.batch_size)
        self.scheduler = build_scheduler(schedule, self.optimizer)
        self.scaler = torch.amp.GradScaler(torch.device(device).type, enabled=schedule.amp == "fp16")
        self.iteration = 0

    def join(self) -> None:
        """Take rank 0's weights, and average gradients over the ranks from here on."""
        self.replica = self.world.replicate(self.model)

    def step(self, batches: Iterator[tuple[list[Tensor], list[Any]]]) -> dict[str, Tensor]:
        """One optimizer step over `schedule.accumulate` parts; returns the losses' means, still on the device.

        The batches are this rank's parts, the means those over all ranks.
        """
        schedule = self.recipe.schedule
        self.world.seed_step(self.recipe.seed, self.iteration)
        self.replica.train()
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for number in range(1, schedule.accumulate + 1):
            images, targets = next(batches)
            with nullcontext() if number == schedule.accumulate else unsynchronized(self.replica):
                with autocast(self.device, schedule.amp), told_of_lone_values():
                    losses = self.replica([to_unit_range(image, self.device) for image in images], targets)
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
        return self.world.mean(totals)

    def state(self) -> dict[str, Any]:
        """Everything but the weights that the next step depends on."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": random_state(self.device),
            "data": self.data,
        }

    def snapshot(self) -> Snapshot:
        """A copy of what a checkpoint would hold; on other ranks than 0, which write none, nothing."""
        if not self.world.is_main:
            return Snapshot(self.iteration, {}, {})
        return Snapshot(self.iteration, detached(self.model.state_dict()), detached(self.state()))

    def save(self, run: RunFolder) -> None:
        """Write a checkpoint, on rank 0; the others wait for it."""
        with self.world.together():
            if self.world.is_main:
                save_checkpoint(run, self.model, iteration=self.iteration, state=self.state())

    def restore(self, run: RunFolder) -> tuple[str, ...]:
        """Go back to the newest sound checkpoint of `run`. Raises CheckpointError.

        Returns a line for each newer one that is damaged.
        """
        if run.read_recipe() != self.recipe:
            raise CheckpointError(
                f"{run.root} was trained with another recipe: resume it without recipe, --data, --seed or --set"
            )
        checkpoint = load_checkpoint(run, device=self.device)
        before = checkpoint.state.get("data", self.data)
        if before != self.data:
            raise CheckpointError(
                f"the training data of {run.root} has changed, from {before} to {self.data}: it cannot go on exactly; "
                f"give it back, or start a new run, from these weights with --set weights={run.weights_path}"
            )
        self.load(Snapshot(checkpoint.iteration, checkpoint.weights, checkpoint.state), source=run.root)
        if self.world.is_main:
            run.truncate_metrics(self.iteration, finished=self.iteration == self.recipe.schedule.iterations)
        return checkpoint.skipped

    def load(self, snapshot: Snapshot, *, source: Path) -> None:
        """Go on from a state; `source` names it. Raises CheckpointError where it is of another model or version."""
        restore_model(self.model, snapshot.weights, source=source)
        try:
            self.optimizer.load_state_dict(snapshot.state["optimizer"])
            self.scheduler.load_state_dict(snapshot.state["scheduler"])
            self.scaler.load_state_dict(snapshot.state["scaler"])
            restore_random_state(snapshot.state["rng"], self.device)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the training state in {source} does not fit ({type(error).__name__}: {first_line(error)}): "
                "expected one that this version of aligncli and torch has written"
            ) from error
        self.iteration = snapshot.iteration


@contextmanager
def told_of_lone_values() -> Iterator[None]:
    """A batch norm that gets one value a channel ends a training in one line: torch names no key of a recipe."""
    try:
        yield
    except ValueError as error:
        if LONE_VALUE not in str(error):
            raise
        raise TrainingError(
            f"a batch norm in training has a single cell of a single image to look at ({first_line(error)}): take "
            "larger images (input.min_short_side), more at a time (schedule.batch_size, a lower schedule.accumulate), "
            "or model.backbone.frozen_norm=true where the norm is the backbone's"
        ) from error
