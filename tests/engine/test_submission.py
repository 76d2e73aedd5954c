"""Detections on COCO's test-dev are what its server takes: checked with pycocotools, whose format it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aligncli.data.dataset import Categories
from aligncli.engine.inference import load_run
from aligncli.engine.reporter import SilentReporter
from aligncli.engine.run_folder import RunFolder, write_json
from aligncli.engine.submission import submit, write_submission
from aligncli.engine.train import train
from aligncli.errors import DataError
from tests.engine.conftest import SECONDS
from tests.helpers import tiny_recipe

CLASSES = {
    90: "toothbrush",
    3: "car",
    17: "cat",
    18: "dog",
    61: "cake",
    1: "person",
}  # COCO's ids: gaps, here out of order
IMAGE_IDS = (581929, 12, 7)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes have the ids of COCO's; its recipe's data stay the shapes."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    changes = SECONDS | {"schedule.iterations": 1, "model.postprocess.score_threshold": 0.0}
    train(tiny_recipe("aligndet_small", changes), run_dir)
    categories = Categories(tuple(CLASSES[coco_id] for coco_id in sorted(CLASSES)), tuple(sorted(CLASSES)))
    write_json(RunFolder(run_dir).categories_path, categories.to_json())
    return run_dir


@pytest.fixture
def test_dev(tmp_path: Path) -> Path:
    """COCO's layout: three listed images of several sizes, without annotations, and one more that is not listed."""
    root = tmp_path / "coco"
    (root / "test2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    sizes = [(120, 90), (64, 64), (50, 100)]
    pixels = np.random.default_rng(0)
    for row, (width, height) in enumerate([*sizes, (40, 40)]):
        noise = pixels.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "test2017" / f"{row:012}.jpg")
    images = [
        {"id": image_id, "file_name": f"{row:012}.jpg", "width": width, "height": height}
        for row, (image_id, (width, height)) in enumerate(zip(IMAGE_IDS, sizes, strict=True))
    ]
    document = {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [],
        "images": images,
        "categories": [{"id": coco_id, "name": name} for coco_id, name in CLASSES.items()],
    }
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(document))
    return root


def test_pycocotools_takes_the_file_for_results_of_these_images(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    written = write_submission(run_dir, test_dev, tmp_path / "new" / "detections.json")
    records = json.loads(written.path.read_text())
    assert (written.num_images, written.num_detections) == (3, len(records))
    assert {record["image_id"] for record in records} == set(IMAGE_IDS)
    assert {record["category_id"] for record in records} == set(CLASSES)
    firsts = [next(record for record in records if record["image_id"] == image_id) for image_id in IMAGE_IDS]
    truth = ground_truth(test_dev, firsts)
    found = truth.loadRes(str(written.path))
    assert len(found.getAnnIds()) == len(records)
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[8] == 1.0  # AR100: what was made of detections is found again


def listed(test_dev: Path) -> dict:
    return json.loads((test_dev / "annotations" / "image_info_test-dev2017.json").read_text())


def ground_truth(test_dev: Path, objects: list[dict]) -> COCO:
    """What a server with these objects holds: the listed images, with annotations."""
    boxes = [
        record | {"id": row, "area": record["bbox"][2] * record["bbox"][3], "iscrowd": 0}
        for row, record in enumerate(objects, start=1)
    ]
    truth = COCO()
    truth.dataset = listed(test_dev) | {"annotations": boxes}
    truth.createIndex()
    return truth


def test_records_are_in_pixels_of_the_original_images(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    path = write_submission(run_dir, test_dev, tmp_path / "d.json").path
    sizes = {image["id"]: (image["width"], image["height"]) for image in listed(test_dev)["images"]}
    reached = dict.fromkeys(sizes, 0.0)
    for record in json.loads(path.read_text()):
        assert set(record) == {"image_id", "category_id", "bbox", "score"}
        x, y, width, height = record["bbox"]
        limit = sizes[record["image_id"]]
        assert min(x, y, width, height) >= 0
        assert x + width <= limit[0] + 1e-6
        assert y + height <= limit[1] + 1e-6
        assert 0 < record["score"] < 1
        reached[record["image_id"]] = max(reached[record["image_id"]], x + width)
    assert reached[IMAGE_IDS[0]] > 64  # the first image enters the network at another scale than its own


def test_the_run_folder_stays_as_it_is_and_the_file_is_the_same_again(
    run_dir: Path, test_dev: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    first = write_submission(run_dir, test_dev, tmp_path / "first.json").path
    second = write_submission(run_dir, test_dev, tmp_path / "second.json").path
    assert first.read_bytes() == second.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_every_image_is_reported(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    class Counter(SilentReporter):
        seen: tuple[int, int] = (0, 0)

        def evaluation(self, *, done: int, total: int) -> None:
            self.seen = (done, total)

    counter = Counter()
    write_submission(run_dir, test_dev, tmp_path / "d.json", reporter=counter)
    assert counter.seen == (3, 3)


def test_an_image_that_cannot_be_read_leaves_no_file(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    (test_dev / "test2017" / "000000000001.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"000000000001\.jpg"):
        write_submission(run_dir, test_dev, tmp_path / "out" / "d.json")
    assert list((tmp_path / "out").iterdir()) == []


def test_other_classes_than_the_run_s_are_refused(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    path = test_dev / "annotations" / "image_info_test-dev2017.json"
    path.write_text(path.read_text().replace('"dog"', '"dugong"'))
    with pytest.raises(DataError, match="'dugong' stands where id 18 'dog' was expected"):
        write_submission(run_dir, test_dev, tmp_path / "d.json")


def test_a_run_on_coco_needs_no_folder(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    loaded = load_run(run_dir)
    data = {"kind": "coco", "root": str(test_dev), "images": "{split}2017"}
    on_coco = type(loaded).of(loaded.recipe.changed({"data": data}), loaded.model, loaded.categories)
    assert submit(on_coco, None, tmp_path / "d.json", device="cpu").num_images == 3


def test_shapes_have_no_test_split(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shapes of aligndet_small have no test split: add --data COCO"):
        write_submission(run_dir, None, tmp_path / "d.json")


def test_a_folder_for_a_name_is_refused(run_dir: Path, test_dev: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        write_submission(run_dir, test_dev, tmp_path)
