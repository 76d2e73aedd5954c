"""All that a training needs before its first step: data, model, and a run folder that is its own."""

from contextlib import ExitStack

from aligncli.build import Parts, build_datasets, build_model
from aligncli.config import Recipe
from aligncli.data.dataset import DetectionDataset, fingerprint, require_same_categories
from aligncli.engine.distributed import World
from aligncli.engine.inference import check_device
from aligncli.engine.random_state import seed_everything
from aligncli.engine.reporter import Reporter
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.run_lock import only_training
from aligncli.engine.schedule import check_schedule
from aligncli.engine.trainer import Trainer
from aligncli.engine.weights import initialize
from aligncli.errors import CheckpointError, TrainingError


def set_up(
    recipe: Recipe,
    run: RunFolder,
    *,
    device: str,
    resume: bool,
    download: bool,
    parts: Parts,
    reporter: Reporter,
    held: ExitStack,
    world: World,
) -> tuple[Trainer, DetectionDataset, DetectionDataset]:
    """The training, its training set and its validation set; arguments as for `train`.

    Args:
        held: keeps the run folder for this training until it is closed.

    Raises UserErrors for bad input, one where the folder holds another training, or one that goes on.
    """
    first_call = world.broadcast((recipe, resume))
    with world.together():
        if first_call != (recipe, resume):
            raise TrainingError(
                "another process has another recipe, or sees another run folder: "
                "expected the same command on every machine, and --out on a disk that all share"
            )
        check_schedule(recipe.schedule, num_ranks=world.size)
        check_device(device, amp=recipe.schedule.amp)
        train_set, val_set = build_datasets(recipe)
        categories = train_set.categories
        require_same_categories(categories, val_set.categories, source="validation annotations")
        seed_everything(recipe.seed)
        model = build_model(recipe, num_classes=len(categories.names), parts=parts)
        trainer = Trainer(recipe, model, device=device, world=world, data=fingerprint(train_set))
        if resume:
            require_same_categories(run.read_categories(), categories, source=f"the data of {run.root} has changed")
            if world.is_main:
                held.enter_context(only_training(run))
            for line in trainer.restore(run):
                reporter.message(line)
        elif world.is_main:  # its weights become everyone's
            if run.newest_checkpoint():
                raise CheckpointError(f"{run.root} holds a training: resume it, or choose another folder")
            started_from = initialize(model, recipe, download=download, class_names=categories.names)
            held.enter_context(only_training(run))
            run.create(recipe, categories, device=device)
            reporter.message(started_from)
    return trainer, train_set, val_set
