"""Takes the step of a replay bundle again: the same images, weights and random numbers, with hooks that look.

The steps between the bundle's state and the broken one, fewer than `schedule.log_every`, are taken first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aligncli.build import NO_PARTS, Parts, build_dataset, build_model
from aligncli.catalog import on_folder
from aligncli.data.loader import Batch, train_loader
from aligncli.engine.bundle import read_bundle
from aligncli.engine.first_broken import FirstBroken, watching
from aligncli.engine.inference import check_device
from aligncli.engine.loss_watch import describe_losses, is_finite, numbers
from aligncli.engine.trainer import Trainer


@dataclass(frozen=True)
class Replay:
    """A step taken again.

    images: (id, file name) as they were recorded; image_ids: what the data gave now. culprit: one line, see
    first_broken.py. as_recorded: how many of `num_steps` have the very losses that training had.
    """

    iteration: int
    happened: str
    images: tuple[tuple[int, str], ...]
    image_ids: tuple[int, ...]
    losses: dict[str, float]
    finite: bool
    culprit: str
    as_recorded: int
    num_steps: int

    def describe(self) -> str:
        """`adm_box loss is nan at iteration 8`."""
        return f"{describe_losses(self.losses) or 'all losses are finite'} at iteration {self.iteration}"


def replay(
    folder: Path,
    *,
    data: Path | None = None,
    device: str | None = None,
    parts: Parts = NO_PARTS,
) -> Replay:
    """Take a bundle's step again and tell what breaks in it.

    Args:
        folder: RUN/replay/ITERATION. data: where the images are now; None: where they were. device: None: the
        one it happened on.

    Nothing is written. Raises CheckpointError, DataError, DeviceError, RecipeError.
    """
    bundle = read_bundle(folder, device="cpu")
    step, recipe = bundle.step, bundle.recipe
    device = device or bundle.device
    check_device(device, amp=recipe.schedule.amp)
    train_set = build_dataset(recipe if data is None else on_folder(recipe, data), "train")
    model = build_model(recipe, num_classes=len(train_set.categories.names), parts=parts)
    trainer = Trainer(recipe, model, device=device)
    trainer.load(step.before, source=folder)
    accumulate = recipe.schedule.accumulate
    batches = train_loader(
        train_set,
        recipe.input,
        batch_size=recipe.schedule.batch_size // accumulate,
        seed=recipe.seed,
        num_batches=step.iteration * accumulate,
        first_batch=trainer.iteration * accumulate,
    )
    losses, image_ids, found = _take(trainer, iter(batches), num_steps=len(step.losses))
    return Replay(
        iteration=step.iteration,
        happened=step.describe(),
        images=bundle.images,
        image_ids=image_ids,
        losses=losses[-1],
        finite=is_finite(losses[-1], scaled=trainer.scaler.is_enabled()),
        culprit=found.describe(),
        as_recorded=sum(str(ours) == str(theirs) for ours, theirs in zip(losses, step.losses)),  # NaN is not NaN
        num_steps=len(step.losses),
    )


def _take(
    trainer: Trainer, batches: Iterator[Batch], *, num_steps: int
) -> tuple[list[dict[str, float]], tuple[int, ...], FirstBroken]:
    """Losses of each step, and of the last one the images and what broke."""
    losses = [numbers(trainer.step(batches)) for _ in range(num_steps - 1)]
    image_ids: list[int] = []

    def noting() -> Iterator[Batch]:
        for images, targets in batches:
            image_ids.extend(target["image_id"] for target in targets)
            yield images, targets

    with watching(trainer.model) as found:
        losses.append(numbers(trainer.step(noting())))
    return losses, tuple(image_ids), found
