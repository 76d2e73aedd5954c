"""`aligncli bench data` without the command line, on a few small files. No time is asserted."""

import json

import pytest
import torch
from PIL import Image

from aligncli.analysis.bench import data
from aligncli.analysis.bench.data import bench_loaders
from aligncli.analysis.bench.failures import WrongAnswerError
from aligncli.analysis.bench.loaders import LoaderCase, OurPass, PlainPass, pixel_difference
from aligncli.analysis.bench.photos import NUM_BOXES, make_photos
from aligncli.config import CocoConfig
from aligncli.data.coco import CocoDataset
from aligncli.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "data", count=5, size=(60, 80))


@pytest.fixture
def case(folder):
    return LoaderCase(CocoConfig(root=str(folder)), short_side=96, long_side=160)


def bench(case):
    return bench_loaders(case, runs=3, seconds=60.0, product_side=64)


def test_loaders_take_turns_over_every_image(case):
    report = bench(case)
    ours, plain = report.results
    assert [[sample.round for sample in result.samples] for result in (ours, plain)] == [[0, 1, 2]] * 2
    assert ours.num_images == plain.num_images == 4  # two whole batches of two
    assert report.speed_up(ours) == pytest.approx(plain.seconds.median / ours.seconds.median)
    assert report.speed_up(plain) == 1.0
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["subject"]["median_size"] == [60, 80]
    assert document["machine"]["versions"].keys() >= {"pillow", "torchvision"}
    assert "flops" not in document["results"][0]
    assert document["results"][0]["images_per_second"] == 4 / ours.seconds.median


def test_both_loaders_give_the_same_images_and_boxes(case):
    ours, plain = OurPass(case), PlainPass(case)
    assert 0 <= pixel_difference(ours, plain) < 1
    for (image, target), (other, other_target) in zip(ours.first(5), plain.first(5), strict=True):
        assert image.shape == other.shape
        assert image.dtype == other.dtype == torch.uint8
        torch.testing.assert_close(target["boxes"], other_target["boxes"], rtol=0, atol=0.01)
        assert torch.equal(target["labels"], other_target["labels"] - 1)


def test_a_loader_that_gives_other_images_is_not_timed(case, monkeypatch):
    monkeypatch.setattr(
        OurPass, "first", lambda self, count: [(image.flip(-1), target) for image, target in first(self, count)]
    )
    with pytest.raises(WrongAnswerError, match="pixels differ"):
        pixel_difference(OurPass(case), PlainPass(case))
    wrong, right = bench(case).results
    assert wrong.is_wrong
    assert (len(wrong.samples), len(right.samples)) == (0, 3)


first = OurPass.first


def test_workers_take_part(case):
    report = data.bench_loaders(LoaderCase(case.data, 96, 160, workers=1), runs=1, seconds=1.0, product_side=64)
    assert all(result.num_images == 4 for result in report.results)


def test_photos_are_a_sound_data_folder_of_both_aspects(folder):
    dataset = CocoDataset(CocoConfig(root=str(folder)), "train")
    assert (len(dataset), dataset.num_boxes_left_out) == (5, 0)
    sizes = {Image.open(path).size for path in (folder / "images").iterdir()}
    assert sizes == {(80, 60), (60, 80)}
    document = json.loads((folder / "annotations" / "instances_train.json").read_text())
    assert len(document["annotations"]) == 5 * NUM_BOXES


def test_photos_repeat_and_weigh_what_cocos_weigh(tmp_path):
    files = [make_photos(tmp_path / name, count=1, size=(480, 640)) / "images" / "000001.jpg" for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert 0.4 < files[0].stat().st_size / (480 * 640) < 0.7  # bytes a pixel


def test_more_images_a_batch_than_there_are_is_a_users_error(case):
    with pytest.raises(DataError, match="5 images make no batch of 6"):
        bench(LoaderCase(case.data, batch=6))
