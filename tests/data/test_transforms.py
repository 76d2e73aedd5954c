import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligncli.config import InputConfig
from aligncli.data.random_stream import RandomStream
from aligncli.data.transforms import augment, prepare, resize_image, resized_size


def sample(height=30, width=40, scale=(1.0, 1.0)):
    """One bright rectangle on black, and its box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, 5:15, 10:30] = 200
    target = {
        "boxes": torch.tensor([[10.0, 5.0, 30.0, 15.0]]),
        "labels": torch.tensor([2]),
        "crowd": torch.tensor([True]),
        "image_id": 7,
        "size": (height, width),
        "scale": scale,
    }
    return image, target


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # the short side decides
        ((640, 480), (1067, 800)),
        ((500, 1000), (666, 1333)),  # the long side decides
        ((800, 1333), (800, 1333)),
        ((600, 1000), (800, 1333)),  # both at once
        ((1, 10_000), (1, 1333)),  # never less than a pixel
    ],
)
def test_short_side_800_within_long_side_1333(size, expected):
    assert resized_size(*size, short_side=800, long_side=1333) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000), st.integers(1, 3000))
def test_no_side_exceeds_its_limit_and_one_reaches_it(height, width, short_side, long_side):
    low, high = sorted(resized_size(height, width, short_side=short_side, long_side=long_side))
    assert high <= long_side
    assert low <= short_side
    assert low == short_side or high == long_side


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_follow_the_pixels(flip):
    image, target = prepare(*sample(), short_side=75, long_side=1000, flip=flip)
    assert tuple(image.shape) == (3, 75, 100)
    rows, columns = torch.nonzero(image[0] > 100, as_tuple=True)  # at least half of the brightness
    seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    torch.testing.assert_close(target["boxes"][0], seen, atol=1.0, rtol=0)


def test_flip_keeps_boxes_ordered_and_twice_is_identity():
    once = prepare(*sample(), short_side=30, long_side=40, flip=True)
    assert once[1]["boxes"].tolist() == [[10.0, 5.0, 30.0, 15.0]]  # 40 - 30, 40 - 10: this box is symmetric
    image, target = sample()
    target["boxes"] = torch.tensor([[1.0, 2.0, 5.0, 6.0]])
    flipped = prepare(image, target, short_side=30, long_side=40, flip=True)
    assert flipped[1]["boxes"].tolist() == [[35.0, 2.0, 39.0, 6.0]]
    again = prepare(*flipped, short_side=30, long_side=40, flip=True)
    assert again[1]["boxes"].tolist() == [[1.0, 2.0, 5.0, 6.0]]
    assert torch.equal(again[0], image)


def test_an_image_of_the_right_size_is_not_touched():
    image, target = sample()
    same, same_target = prepare(image, target, short_side=30, long_side=40, flip=False)
    assert same.data_ptr() == image.data_ptr()
    assert torch.equal(same_target["boxes"], target["boxes"])
    assert same_target["scale"] == (1.0, 1.0)


def test_scale_is_the_exact_ratio_of_each_axis():
    image, target = prepare(*sample(31, 47, scale=(2.0, 3.0)), short_side=50, long_side=1000, flip=False)
    height, width = image.shape[1:]
    assert target["scale"] == pytest.approx((2.0 * width / 47, 3.0 * height / 31), rel=1e-12)
    assert target["size"] == (31, 47)
    expected = torch.tensor([[10 * width / 47, 5 * height / 31, 30 * width / 47, 15 * height / 31]])
    torch.testing.assert_close(target["boxes"], expected)


def test_what_is_not_geometry_stays_and_the_original_is_unchanged():
    image, original = sample()
    _, target = prepare(image, original, short_side=60, long_side=1000, flip=True)
    assert target["labels"] is original["labels"]
    assert target["crowd"] is original["crowd"]
    assert target["image_id"] == 7
    assert original["boxes"].tolist() == [[10.0, 5.0, 30.0, 15.0]]


def test_images_without_boxes_pass():
    image, target = sample()
    target["boxes"] = torch.zeros(0, 4)
    assert prepare(image, target, short_side=60, long_side=1000, flip=True)[1]["boxes"].shape == (0, 4)


def test_resizing_does_not_shift_the_image():
    ramp = torch.arange(0, 200, 2, dtype=torch.uint8).expand(3, 100, 100)
    small, ratios = resize_image(ramp, short_side=50, long_side=50)
    assert ratios == (0.5, 0.5)
    # Output pixel x covers input pixels 2x and 2x + 1, values 4x and 4x + 2
    torch.testing.assert_close(small[0, 20, 2:-2].float(), 4.0 * torch.arange(2, 48) + 1, atol=1.0, rtol=0)


def test_memory_layout_does_not_change_pixels():
    planar = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    interleaved = planar.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    first, _ = resize_image(planar, short_side=90, long_side=200)
    second, _ = resize_image(interleaved, short_side=90, long_side=200)
    assert (first.int() - second.int()).abs().max() <= 1


def test_jitter_draws_every_short_side_and_flips_half():
    inputs = InputConfig(min_short_side=20, max_short_side=24, long_side=100)
    outcomes = [augment(sample(), inputs, RandomStream(0, position)) for position in range(200)]
    assert {image.shape[1] for image, _ in outcomes} == {20, 21, 22, 23, 24}
    image, target = sample()
    target["boxes"] = torch.tensor([[0.0, 5.0, 10.0, 15.0]])
    flips = sum(
        bool(augment((image, target), inputs, RandomStream(0, position))[1]["boxes"][0, 0] > 0)
        for position in range(200)
    )
    assert 75 < flips < 125


@pytest.mark.parametrize(("probability", "left"), [(0.0, 0.0), (1.0, 30.0)])
def test_flip_probability_of_none_and_all(probability, left):
    inputs = InputConfig(min_short_side=30, max_short_side=30, long_side=40, flip_probability=probability)
    image, target = sample()
    target["boxes"] = torch.tensor([[0.0, 5.0, 10.0, 15.0]])
    for position in range(20):
        assert augment((image, target), inputs, RandomStream(0, position))[1]["boxes"][0, 0] == left
