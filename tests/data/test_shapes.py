import hashlib
import pickle

import numpy as np
import pytest
import torch

from aligncli.config import ShapesConfig
from aligncli.data.shapes import ShapesDataset
from aligncli.errors import RecipeError

SMALL = ShapesConfig(num_train=300, num_val=50)
VARIANT_D = ShapesConfig(num_train=300, min_size=16, max_size=112, fit_large=True)
OVERLAP = ((np.maximum, slice(0, 2)), (np.minimum, slice(2, 4)))  # lower and upper corner of an intersection
GOLDEN_PIXELS = "70f567bfffcb72b99db190beaacbf8f4bdf9871809ed110f0725e2fd4d358340"
GOLDEN_BOXES = [
    [29.125, 49.953125, 63.75, 59.9375],
    [2.609375, 74.4375, 36.140625, 103.65625],
    [22.796875, 28.109375, 38.734375, 48.953125],
    [102.203125, 99.25, 126.0, 124.046875],
]


@pytest.fixture(scope="module", params=[SMALL, VARIANT_D], ids=["plain", "fit_large"])
def placed(request):
    """The configuration, and boxes (G, 4) xyxy and labels of every training image."""
    truth = ShapesDataset(request.param, "train").ground_truth()
    records = [[] for _ in truth["images"]]
    for record in truth["annotations"]:
        records[record["image_id"] - 1].append(record)
    boxes = [torch.tensor([record["bbox"] for record in image]) for image in records]
    labels = [torch.tensor([record["category_id"] - 1 for record in image]) for image in records]
    return request.param, [torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], dim=1) for box in boxes], labels


def test_pixels_are_the_same_on_every_machine():
    dataset = ShapesDataset(SMALL, "train")
    digest = hashlib.sha256(b"".join(dataset[index][0].numpy().tobytes() for index in range(20)))
    assert digest.hexdigest() == GOLDEN_PIXELS
    assert dataset[0][1]["boxes"].tolist() == GOLDEN_BOXES


def test_an_image_does_not_depend_on_what_was_asked_before():
    forward, backward = ShapesDataset(SMALL, "train"), ShapesDataset(SMALL, "train")
    images = [forward[index][0] for index in range(5)]
    for index in reversed(range(5)):
        assert torch.equal(backward[index][0], images[index])


def test_cached_images_are_the_painted_ones_and_private():
    dataset = ShapesDataset(SMALL, "train")
    first, _ = dataset[3]
    original = first.clone()
    first.zero_()
    assert torch.equal(dataset[3][0], original)


def test_splits_and_seeds_give_other_images():
    train, val = ShapesDataset(SMALL, "train"), ShapesDataset(SMALL, "val")
    other = ShapesDataset(SMALL.model_copy(update={"train_seed": 3}), "train")
    assert (len(train), len(val)) == (300, 50)
    assert not torch.equal(train[0][0], val[0][0])
    assert not torch.equal(train[0][0], other[0][0])


def test_images_and_targets_have_the_promised_form():
    image, target = ShapesDataset(SMALL, "val")[7]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 128, 128))
    assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
    assert not target["crowd"].any()
    assert (target["image_id"], target["size"], target["scale"]) == (8, (128, 128), (1.0, 1.0))


def test_every_image_holds_one_to_six_objects_inside_it(placed):
    _, boxes, _ = placed
    assert {len(image) for image in boxes} == {1, 2, 3, 4, 5, 6}
    together = torch.cat(boxes)
    assert together.min() >= 0
    assert together.max() <= 128
    assert (together[:, 2:] > together[:, :2]).all()


def test_sizes_and_aspects_are_within_their_limits(placed):
    config, boxes, _ = placed
    sides = torch.cat([image[:, 2:] - image[:, :2] for image in boxes])
    sizes, aspects = sides.prod(dim=1).sqrt(), sides[:, 0] / sides[:, 1]
    assert config.min_size - 0.1 < sizes.min() < config.min_size * 1.1
    assert config.max_size * 0.9 < sizes.max() < config.max_size + 0.1
    assert 0.248 < aspects.min() < 0.27
    assert 3.7 < aspects.max() < 4.03


def test_objects_stay_visible(placed):
    for boxes in placed[1]:
        corners = boxes.numpy()
        low, high = (limit(corners[:, None, part], corners[:, part]) for limit, part in OVERLAP)
        shared = np.clip(high - low, 0, None).prod(axis=2)  # row: earlier object, column: later one
        areas = shared.diagonal()
        shared = np.triu(shared, k=1)
        assert (shared <= 0.3 * (areas[:, None] + areas - shared) + 1e-3).all()
        assert (shared.sum(axis=1) <= 0.6 * areas + 1e-3).all()


def test_all_classes_are_equally_frequent(placed):
    counts = torch.cat(placed[2]).bincount(minlength=6)
    assert len(counts) == 6
    assert counts.min() > 0.75 * counts.max()


def test_fit_large_keeps_large_objects_that_are_otherwise_rejected():
    def share_of_large(config):
        truth = ShapesDataset(config, "train").ground_truth()
        return np.mean([record["area"] > 80**2 for record in truth["annotations"]])

    plain = VARIANT_D.model_copy(update={"fit_large": False})
    assert share_of_large(VARIANT_D) > 1.15 * share_of_large(plain)


def test_ground_truth_agrees_with_the_targets():
    dataset = ShapesDataset(SMALL, "val")
    truth = dataset.ground_truth()
    assert [record["id"] for record in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
    assert [image["id"] for image in truth["images"]] == list(range(1, 51))
    for index in (0, 13, 49):
        _, target = dataset[index]
        records = [record for record in truth["annotations"] if record["image_id"] == target["image_id"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (record["bbox"] for record in records)]
        assert corners == target["boxes"].tolist()
        assert [record["category_id"] - 1 for record in records] == target["labels"].tolist()
        assert all(record["area"] == record["bbox"][2] * record["bbox"][3] for record in records)


def test_the_cache_does_not_travel_to_worker_processes():
    dataset = ShapesDataset(SMALL, "train")
    empty = len(pickle.dumps(dataset))
    image, _ = dataset[0]
    assert len(pickle.dumps(dataset)) == empty
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0][0], image)


def test_images_stay_full_of_objects_where_hardly_any_aspect_fits():
    dataset = ShapesDataset(ShapesConfig(image_size=32, min_size=31.9, max_size=32, num_train=30), "train")
    assert all(len(dataset[index][1]["boxes"]) == 1 for index in range(30))


@pytest.mark.parametrize("index", [-1, 300])
def test_an_index_outside_is_an_index_error(index):
    with pytest.raises(IndexError):
        ShapesDataset(SMALL, "train")[index]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_size": 60.0, "max_size": 50.0}, "'data.min_size': 60 exceeds data.max_size 50"),
        ({"min_size": 200.0, "max_size": 300.0}, "must be from 4 to data.image_size 128"),
        ({"min_size": 0.5}, "must be from 4 to data.image_size 128"),
        ({"val_seed": 1}, "'data.val_seed': 1 is also data.train_seed"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        ShapesDataset(ShapesConfig(**changes), "train")
