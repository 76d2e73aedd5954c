"""Data folders for the tests: a small one made in code, to be spoilt, and the real ones where they exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aligncli.config import CocoConfig
from tests.helpers import REAL_DATA


class DataFolder:
    """Two splits of three 40 x 30 images. Category ids have gaps and no order, annotation ids start at 0."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "images"
        self.images.mkdir(parents=True)
        (root / "annotations").mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        for split in ("train", "val"):
            document = self.document(split)
            self.write(split, document)
            for row, image in enumerate(document["images"]):
                Image.fromarray(pixels + np.uint8(row)).save(self.images / image["file_name"])

    def document(self, split: str) -> dict[str, Any]:
        """Image 0 has one box, image 1 a box and a crowd region (listed first and last), image 2 nothing."""
        return {
            "images": [
                {"id": 10 * row + 5, "file_name": f"{split}{row}.png", "width": 40, "height": 30} for row in range(3)
            ],
            "annotations": [
                box_record(0, image_id=15, category_id=90, bbox=[1.5, 2, 10, 20], area=123.5),
                box_record(8, image_id=5, category_id=3, bbox=[0, 0, 40, 30]),
                box_record(9, image_id=15, category_id=7, bbox=[30, 20, 8, 8], iscrowd=1),
            ],
            "categories": [
                {"id": 7, "name": "crab"},
                {"id": 3, "name": "fish"},
                {"id": 90, "name": "star"},
            ],
        }

    def write(self, split: str, content: object) -> Path:
        """Replace an annotation file: text as it is, anything else as JSON."""
        path = self.root / "annotations" / f"instances_{split}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def write_test(self, **changes: Any) -> Path:
        """COCO's list of test images (which has no annotations) of the validation images, changed as asked."""
        document = {key: value for key, value in self.document("val").items() if key != "annotations"} | changes
        path = self.root / "annotations" / "image_info_test-dev2017.json"
        path.write_text(json.dumps(document))
        return path

    def config(self, **changes: Any) -> CocoConfig:
        return CocoConfig(**{"root": str(self.root)} | changes)


def box_record(identity: int, **values: Any) -> dict[str, Any]:
    return {"id": identity, "area": values["bbox"][2] * values["bbox"][3], "iscrowd": 0, **values}


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """A faultless data folder."""
    return DataFolder(tmp_path / "set")


@pytest.fixture
def real_set(request: pytest.FixtureRequest) -> Path:
    """A real photograph set by name (indirect parameter); skips where it is not installed."""
    path = REAL_DATA / request.param
    if not path.is_dir():
        pytest.skip(f"real data set {request.param} is not on this machine")
    return path
