"""Batches for training and evaluation, the same ones for any number of workers.

Batch number b of a run is a function of (seed, b): which images are in it (batch_plan.py) and how each is flipped
and resized. So a resumed run sees exactly the batches that an uninterrupted one would have seen. Several processes
share these very batches: of each one takes its part in training, and whole ones in turn in evaluation.
Batches are lists; padding to a common size is the model's, which knows its strides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aligncli.config import InputConfig
from aligncli.data.batch_plan import AUGMENT, BatchPlan, PlannedBatches
from aligncli.data.dataset import DetectionDataset, Sample, Target
from aligncli.data.random_stream import RandomStream
from aligncli.data.transforms import augment, prepare
from aligncli.data.worker_signals import signals_held_back
from aligncli.data.worker_watch import WorkerWatch
from aligncli.errors import DataError, RecipeError, UserError

Batch = tuple[list[Tensor], list[Target]]  # images uint8 (3, h, w) of differing sizes


class Loader:
    """Iterates over batches; `len` tells how many. Raises the UserError of a sample as it is.

    A worker that died, or that gives nothing for `input.timeout` seconds, is a DataError that names its image;
    where torch tells of a death outside of this loop, `explain` makes the same of it. For a GPU, `pin_memory` puts
    images where they can be copied from while it computes.
    """

    def __init__(
        self, samples: _Samples, batches: Iterable[list], input: InputConfig, *, pin_memory: bool = False
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aligncli-workers-") if input.workers else None
        self._dataset = samples.dataset
        self._watch = samples.watch = WorkerWatch(input.workers, Path(self._folder.name if self._folder else ""))
        self._loader = DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=input.workers,
            collate_fn=_collate,
            worker_init_fn=self._watch.start,
            timeout=input.timeout if input.workers else 0.0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # or each pass would advance torch's global random stream
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            with signals_held_back():
                batches = iter(self._loader)  # starts the workers
            for batch in batches:
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except RuntimeError as error:
            explained = self.explain(error)
            if explained is None:
                raise
            raise explained from error

    def explain(self, error: RuntimeError) -> DataError | None:
        """What happened to a worker, if that is what the error is about."""
        return self._watch.explain(error, self._dataset)


def train_loader(
    dataset: DetectionDataset,
    input: InputConfig,
    *,
    batch_size: int,
    seed: int,
    num_batches: int,
    first_batch: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Batches `first_batch` .. `num_batches - 1` of the run that `seed` determines.

    Of each batch this is the part of one of `num_ranks` processes, whose parts make the batch in the order of
    ranks; they must divide `batch_size`.

    Endless in principle: images are reshuffled every epoch, and a batch may be larger than the data set.
    """
    if input.min_short_side > input.max_short_side:
        raise RecipeError(
            f"recipe key 'input.min_short_side': {input.min_short_side} exceeds max_short_side {input.max_short_side}"
        )
    plan = BatchPlan(dataset.sizes, batch_size=batch_size, seed=seed, aspect_grouping=input.aspect_grouping)
    share = batch_size // num_ranks
    part = slice(rank * share, (rank + 1) * share)
    batches = PlannedBatches(plan, first=first_batch, last=num_batches, part=part)
    return Loader(_TrainSamples(dataset, input, seed), batches, input, pin_memory=pin_memory)


def eval_loader(
    dataset: DetectionDataset,
    input: InputConfig | None,
    *,
    batch_size: int,
    rank: int = 0,
    num_ranks: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Every image once, in index order, without flip and at `input.max_short_side`; as it is where `input` is None.

    Of several processes each takes every `num_ranks`-th batch, from number `rank` on.
    """
    batches = [
        list(range(first, min(first + batch_size, len(dataset)))) for first in range(0, len(dataset), batch_size)
    ][rank::num_ranks]
    return _EvaluationLoader(_EvaluationSamples(dataset, input), batches, input or InputConfig(), pin_memory=pin_memory)


class _EvaluationLoader(Loader):
    def __iter__(self) -> Iterator[Batch]:
        seen: set[int] = set()
        for images, targets in super().__iter__():
            require_new_images([target["image_id"] for target in targets], seen)
            yield images, targets


def require_new_images(image_ids: Iterable[int], seen: set[int]) -> None:
    """Add them to `seen`. Raises DataError where one is there already."""
    for image_id in image_ids:
        if image_id in seen:
            raise DataError(
                f"image id {image_id} came up twice: a data set that skips unreadable "
                "images cannot be evaluated, use data.unreadable=error"
            )
        seen.add(image_id)


class _Samples(Dataset):
    """Prepared samples of a data set; the loader gives them their `watch`."""

    watch: WorkerWatch

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset

    def read(self, index: int) -> Sample | UserError:
        """Image `index`, or what is wrong with it."""
        self.watch.at(index)
        try:
            return self.dataset[index]
        except UserError as error:
            return error


class _TrainSamples(_Samples):
    """Augmented samples. The randomness belongs to the position in the run, not to a worker process."""

    def __init__(self, dataset: DetectionDataset, input: InputConfig, seed: int) -> None:
        super().__init__(dataset)
        self._input = input
        self._seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Sample | UserError:
        position, index = key
        sample = self.read(index)
        if isinstance(sample, UserError):
            return sample
        return augment(sample, self._input, RandomStream(self._seed, AUGMENT, position))


class _EvaluationSamples(_Samples):
    def __init__(self, dataset: DetectionDataset, input: InputConfig | None) -> None:
        super().__init__(dataset)
        self._input = input

    def __getitem__(self, index: int) -> Sample | UserError:
        sample = self.read(index)
        if isinstance(sample, UserError) or self._input is None:
            return sample
        image, target = sample
        short_side, long_side = self._input.max_short_side, self._input.long_side
        return prepare(image, target, short_side=short_side, long_side=long_side, flip=False)


def _collate(samples: list[Sample | UserError]) -> Batch | UserError:
    """Lists, not stacked tensors. An error travels as a value: raised in a worker process, torch would bury
    its one line in that worker's traceback."""
    images, targets = [], []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        images.append(sample[0])
        targets.append(sample[1])
    return images, targets
