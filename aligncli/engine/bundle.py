"""Replay bundles: what a step that broke needs to be taken again, in a folder written and verified as checkpoints.

`replay/0000123/` in the run folder holds the last sound state before step 123 (`model.safetensors` and
`state.pt`, as in a checkpoint) and `bundle.json`: the recipe, the losses from there on, and the images of the
broken step by id and file name. It holds no images.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aligncli.config import Recipe, parse_recipe
from aligncli.data.batch_plan import BatchPlan
from aligncli.data.dataset import DetectionDataset
from aligncli.engine.checkpoint import STATE, WEIGHTS, load_folder, state_bytes, weights_bytes
from aligncli.engine.disk import write_folder
from aligncli.engine.loss_watch import BrokenStep, Snapshot
from aligncli.engine.run_folder import RunFolder, read_json, reading
from aligncli.errors import CheckpointError, TrainingError, UserError, first_line

BUNDLE = "bundle.json"


@dataclass(frozen=True)
class Bundle:
    """A step that broke. `images` of it: (id, file name), in the order of its batches."""

    recipe: Recipe
    device: str
    step: BrokenStep
    images: tuple[tuple[int, str], ...]


def stop_with_bundle(
    run: RunFolder, recipe: Recipe, step: BrokenStep, dataset: DetectionDataset, *, device: str
) -> TrainingError:
    """Write the bundle of a broken step; returns the TrainingError that says what happened."""
    folder = run.root / "replay" / f"{step.iteration:07d}"
    try:
        _write(folder, Bundle(recipe, device, step, images_of_step(recipe, dataset, step.iteration)))
        hint = f"`aligncli train --replay {folder}` takes this step again and tells where it breaks"
    except (UserError, OSError) as error:
        hint = f"there is no replay bundle of it: {first_line(error)}"
    return TrainingError(f"{step.describe()}: lower optimizer.lr or set schedule.clip_norm; {hint}")


def read_bundle(folder: Path, *, device: str) -> Bundle:
    """A bundle that its manifest confirms, with its state on `device`. Raises CheckpointError."""
    if not (folder / BUNDLE).is_file():
        raise CheckpointError(f"{folder} holds no {BUNDLE}: expected a folder RUN/replay/ITERATION")
    try:
        weights, state = load_folder(folder, device=device, others=(BUNDLE,))
    except CheckpointError as error:
        raise CheckpointError(f"replay bundle {folder} is damaged: {error}") from error
    values = read_json(folder / BUNDLE)
    with reading(folder / BUNDLE):
        step = BrokenStep(
            before=Snapshot(values["after_iteration"], weights, state),
            losses=tuple({name: float(value) for name, value in losses.items()} for losses in values["losses"]),
            rates=tuple(values["lr"]),
        )
        images = tuple((image["id"], image["file_name"]) for image in values["images"])
        return Bundle(parse_recipe(values["recipe"]), values["device"], step, images)


def images_of_step(recipe: Recipe, dataset: DetectionDataset, iteration: int) -> tuple[tuple[int, str], ...]:
    """Id and file name of every image of a step, as the batch plan has it."""
    accumulate = recipe.schedule.accumulate
    plan = BatchPlan(
        dataset.sizes,
        batch_size=recipe.schedule.batch_size // accumulate,
        seed=recipe.seed,
        aspect_grouping=recipe.input.aspect_grouping,
    )
    images = dataset.ground_truth()["images"]
    batches = range((iteration - 1) * accumulate, iteration * accumulate)
    indices = [index for batch in batches for index in plan.indices(batch)]
    return tuple((images[index]["id"], images[index]["file_name"]) for index in indices)


def _write(folder: Path, bundle: Bundle) -> None:
    step = bundle.step
    values = {
        "iteration": step.iteration,
        "happened": step.describe(),
        "seed": bundle.recipe.seed,
        "device": bundle.device,
        "images": [{"id": image_id, "file_name": name} for image_id, name in bundle.images],
        "after_iteration": step.before.iteration,
        "losses": [_plain(losses) for losses in step.losses],
        "lr": list(step.rates),
        "recipe": bundle.recipe.model_dump(mode="json"),
    }
    files = {
        WEIGHTS: weights_bytes(step.before.weights),
        STATE: state_bytes(step.before.state),
        BUNDLE: json.dumps(values, indent=2).encode(),
    }
    write_folder(folder, files)


def _plain(losses: Mapping[str, float]) -> dict[str, float | str]:
    """JSON knows no NaN and no infinity: they become "nan", "inf" and "-inf", which `float` reads."""
    return {name: value if math.isfinite(value) else str(value) for name, value in losses.items()}
