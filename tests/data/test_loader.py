import multiprocessing

import numpy as np
import pytest
import torch

from aligncli.config import InputConfig, ShapesConfig
from aligncli.data.dataset import Categories
from aligncli.data.loader import eval_loader, train_loader
from aligncli.data.shapes import ShapesDataset
from aligncli.errors import DataError, RecipeError

SIZES = np.array([(20, 30)] * 7 + [(30, 20)] * 4)
INPUT = InputConfig(min_short_side=16, max_short_side=24, long_side=48, workers=0)


class Numbered:
    """Images whose pixels are their index."""

    categories = Categories(("thing",), (1,))

    def __init__(self, sizes=SIZES):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index].tolist()
        return torch.full((3, height, width), index, dtype=torch.uint8), {
            "boxes": torch.tensor([[0.0, 0.0, 5.0, 5.0]]),
            "labels": torch.tensor([0]),
            "crowd": torch.tensor([False]),
            "image_id": 100 + index,
            "size": (height, width),
            "scale": (1.0, 1.0),
        }


class Broken(Numbered):
    def __getitem__(self, index):
        if index == 3:
            raise DataError("image 'c.png' cannot be decoded")
        return super().__getitem__(index)


class Repeating(Numbered):
    def __getitem__(self, index):
        return super().__getitem__(min(index, 9))


def content(loader):
    """Everything in the batches, comparable with ==."""
    return [
        [
            (image.tolist(), target["boxes"].tolist(), target["image_id"], target["scale"])
            for image, target in zip(images, targets, strict=True)
        ]
        for images, targets in loader
    ]


def indices(loader):
    return [[target["image_id"] - 100 for target in targets] for _, targets in loader]


def test_batches_are_lists_of_bytes_and_targets():
    images, targets = next(iter(train_loader(Numbered(), INPUT, batch_size=4, seed=0, num_batches=1)))
    assert isinstance(images, list)
    assert len(images) == len(targets) == 4
    assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in images)
    assert len({image.shape[2] >= image.shape[1] for image in images}) == 1


@pytest.mark.parametrize("first", [0, 1, 5, 11])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(first):
    whole = content(train_loader(Numbered(), INPUT, batch_size=3, seed=5, num_batches=12))
    loader = train_loader(Numbered(), INPUT, batch_size=3, seed=5, num_batches=12, first_batch=first)
    assert len(loader) == 12 - first
    assert content(loader) == whole[first:]


def test_an_image_is_augmented_anew_each_time():
    loader = train_loader(Numbered(SIZES[:1]), INPUT, batch_size=1, seed=0, num_batches=100)
    assert len({images[0].shape for images, _ in loader}) == 9  # every short side from 16 to 24


def test_another_seed_gives_other_batches():
    first, second = (content(train_loader(Numbered(), INPUT, batch_size=3, seed=s, num_batches=4)) for s in (0, 1))
    assert first != second


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_do_not_change_batches(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    dataset = ShapesDataset(ShapesConfig(image_size=32, max_size=30, num_train=40), "train")
    alone = train_loader(dataset, INPUT, batch_size=4, seed=0, num_batches=6)
    inputs = INPUT.model_copy(update={"workers": 2 if method == "fork" else 1})  # spawning takes seconds
    shared = train_loader(dataset, inputs, batch_size=4, seed=0, num_batches=6)
    shared._loader.multiprocessing_context = method
    assert content(shared) == content(alone)


def test_a_batch_may_be_larger_than_the_data_set():
    loader = train_loader(Numbered(), INPUT, batch_size=25, seed=0, num_batches=3)
    assert [len(batch) for batch in indices(loader)] == [25, 25, 25]


def test_no_batches_are_left_after_the_last():
    assert indices(train_loader(Numbered(), INPUT, batch_size=2, seed=0, num_batches=3, first_batch=3)) == []


def test_loading_leaves_the_global_random_stream_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    content(train_loader(Numbered(), INPUT, batch_size=2, seed=0, num_batches=2))
    content(eval_loader(Numbered(), INPUT, batch_size=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_an_input_images_stay_as_they_are():
    batches = list(eval_loader(Numbered(), None, batch_size=4))
    images = [image for batch, _ in batches for image in batch]
    assert [tuple(image.shape[1:]) for image in images] == [tuple(size) for size in SIZES.tolist()]
    assert all(target["scale"] == (1.0, 1.0) for _, targets in batches for target in targets)


def test_evaluation_visits_every_image_once_in_order_at_the_largest_side():
    loader = eval_loader(Numbered(), INPUT, batch_size=4)
    batches = list(loader)
    assert len(loader) == 3
    assert indices(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    for images, targets in batches:
        assert all(min(image.shape[1:]) == 24 for image in images)
        assert all(target["boxes"][0, 0] == 0 for target in targets)  # not flipped


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unusable_sample_raises_its_own_one_line(workers):
    inputs = INPUT.model_copy(update={"workers": workers})
    with pytest.raises(DataError, match=r"^image 'c\.png' cannot be decoded$"):
        content(eval_loader(Broken(), inputs, batch_size=2))
    with pytest.raises(DataError, match=r"^image 'c\.png' cannot be decoded$"):
        content(train_loader(Broken(), inputs, batch_size=7, seed=0, num_batches=4))


def test_a_replaced_image_cannot_be_evaluated():
    with pytest.raises(DataError, match="image id 109 came up twice"):
        content(eval_loader(Repeating(), INPUT, batch_size=2))


def test_a_jitter_range_the_wrong_way_round_is_refused():
    inputs = InputConfig(min_short_side=801, max_short_side=800)
    with pytest.raises(RecipeError, match=r"'input\.min_short_side': 801 exceeds max_short_side 800"):
        train_loader(Numbered(), inputs, batch_size=2, seed=0, num_batches=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_for_a_gpu_images_wait_in_pinned_memory():
    images, targets = next(iter(eval_loader(Numbered(), INPUT, batch_size=2, pin_memory=True)))
    assert all(image.is_pinned() for image in images)
    assert [target["image_id"] for target in targets] == [100, 101]
