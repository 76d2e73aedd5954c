"""What a study has to run: every row at every seed, each training once however many tables share it.

A seed changes everything that chance decides: pre-training, training and validation images, weights and
order. Under the study's folder, `runs/NAME-HASH-sSEED` are run folders and `pretrain/` holds what they start
from; the hash is of the settings, so tables that share a row share its run, and a changed recipe is a new one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligncli.catalog import load_recipe, on_folder
from aligncli.config import Recipe, Scale, ShapesConfig, Study
from aligncli.engine.run_folder import RunFolder, read_whole_lines
from aligncli.errors import RecipeError

MAX_SEEDS = (
    50  # each purpose owns a hundred seeds of the embedded data, see recipes/base.py; half of them are for repeats
)
PACKAGED_WEIGHTS = "shapes"
PRETRAINING = "pretrain_shapes"  # the recipe that makes them


@dataclass(frozen=True)
class Job:
    """One training. `features` is where its backbone and neck go, for a pre-training.

    `starts_from` is another job's `features`, for a training that has to wait for it.
    """

    recipe: Recipe
    run_dir: Path
    seed: int
    features: Path | None = None
    starts_from: Path | None = None

    def beside(self, suffix: str) -> Path:
        """A file next to the run folder, named after it: its name may hold dots (a row's ".5"), so no with_suffix."""
        return self.run_dir.with_name(self.run_dir.name + suffix)

    @property
    def is_ready(self) -> bool:
        """Whether what it starts from is there."""
        return self.starts_from is None or self.starts_from.is_file()

    def holds_recipe(self) -> bool:
        """Whether the folder that is there is this very training's."""
        return identity(RunFolder(self.run_dir).read_recipe()) == identity(self.recipe)

    def is_finished(self) -> bool:
        """Whether the folder holds this very training, evaluated after its last iteration, and what is kept of it."""
        if self.features is not None and not self.features.is_file():
            return False
        run = RunFolder(self.run_dir)
        if not (run.recipe_path.is_file() and run.metrics_path.is_file() and self.holds_recipe()):
            return False
        lines = read_whole_lines(run.metrics_path)
        last = json.loads(lines[-1]) if lines else {}
        return "evaluation" in last and last["iteration"] == self.recipe.schedule.iterations


@dataclass(frozen=True)
class Plan:
    """Trainings, and which of them is which row.

    `pretraining` is what unfinished trainings need. `runs` maps (study name, row name, seed) to the job. `changes` and
    `data` are what was asked for every row.
    """

    pretraining: tuple[Job, ...]
    trainings: tuple[Job, ...]
    runs: dict[tuple[str, str, int], Job]
    changes: Mapping[str, object]
    data: Path | None

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All of them, what others need first."""
        return (*self.pretraining, *self.trainings)


def make_plan(
    studies: Sequence[Study],
    *,
    scale: Scale,
    seeds: int,
    folder: Path,
    data: Path | None = None,
    changes: Mapping[str, object],
) -> Plan:
    """The jobs of all rows that exist at `scale`, seed by seed.

    Args:
        data: a user's COCO folder, for every row. changes: as `--set`, for every row.

    Raises RecipeError where a study has no row at this scale or there are too many seeds.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise RecipeError(f"--seeds is {seeds}: expected 1 to {MAX_SEEDS}")
    rows = [(study.name, row) for study in studies for row in study.rows if scale in row.recipes]
    for study in studies:
        if study.name not in {name for name, _ in rows}:
            raise RecipeError(f"study {study.name!r} has no row at scale {scale!r}")
    pretraining: dict[int, Job] = {}
    trainings: dict[str, Job] = {}
    runs: dict[tuple[str, str, int], Job] = {}
    for seed in range(seeds):
        for study_name, row in rows:
            recipe = row.recipes[scale] if data is None else on_folder(row.recipes[scale], data)
            recipe = recipe.changed(changes)
            features = None
            if recipe.weights == PACKAGED_WEIGHTS and seed > 0:
                features = pretraining.setdefault(seed, pretraining_job(folder, seed)).features
            key = f"{fingerprint(recipe)}-s{seed}"
            if key not in trainings:
                trainings[key] = training_job(recipe, folder, seed, key, features)
            runs[study_name, row.name, seed] = trainings[key]
    needed = {job.starts_from for job in trainings.values() if not job.is_finished()}
    first = tuple(job for job in pretraining.values() if job.features in needed)
    return Plan(first, tuple(trainings.values()), runs, changes, data)


def pretraining_job(folder: Path, seed: int) -> Job:
    """The recipe of the packaged weights, with another seed and other images."""
    recipe = seeded(load_recipe(PRETRAINING), seed)
    name = f"{recipe.name}-s{seed}"
    return Job(recipe, folder / "pretrain" / name, seed, features=folder / "pretrain" / f"{name}.safetensors")


def training_job(recipe: Recipe, folder: Path, seed: int, key: str, features: Path | None) -> Job:
    """A row's training with one seed, from that seed's own pre-training.

    Its folder is the one that another study made for the same settings, or a new one.
    """
    runs = folder / "runs"
    made = sorted(path for path in runs.glob(f"*-{key}") if path.is_dir())
    started = recipe if features is None else recipe.changed({"weights": str(features.resolve())})
    run_dir = made[0] if made else runs / f"{recipe.name}-{key}"
    return Job(seeded(started, seed), run_dir, seed, starts_from=features)


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with the weights, the order and the embedded data of another seed; seed 0 is the recipe itself."""
    changes: dict[str, object] = {"seed": recipe.seed + seed}
    if isinstance(recipe.data, ShapesConfig):
        changes["data.train_seed"] = recipe.data.train_seed + seed
        changes["data.val_seed"] = recipe.data.val_seed + seed
    return recipe.changed(changes)


def fingerprint(recipe: Recipe) -> str:
    """Eight hexadecimal digits of what makes two trainings the same."""
    return hashlib.sha256(json.dumps(identity(recipe), sort_keys=True).encode()).hexdigest()[:8]


def identity(recipe: Recipe) -> dict[str, object]:
    """What makes two trainings the same: every setting that they use, but not where weights lie."""
    settings = recipe.model_dump(mode="json", exclude={"data": {"test_annotations"}, "input": {"timeout"}})
    for described in ("name", "summary", "paper"):
        settings.pop(described)
    settings["weights"] = Path(str(settings["weights"])).name
    return settings
