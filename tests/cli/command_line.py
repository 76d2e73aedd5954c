"""How tests run the command line, and the small things they run it on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from aligncli.catalog import load_recipe
from aligncli.config import Recipe
from aligncli.data.dataset import Categories
from aligncli.engine.run_folder import RunFolder, write_json

TINY = ["--set", "schedule.iterations=2", "--set", "schedule.batch_size=2", "--set", "schedule.log_every=1"]
TINY += ["--no-report"]  # which takes seconds, as long as the rest
TINY_SHAPES = [*TINY, "--set", "weights=none", "--set", "data.num_train=4", "--set", "data.num_val=3"]


@dataclass(frozen=True)
class Ended:
    """How a command line ended: exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def error_line(self) -> str:
        """The one line of a user's error; nothing else may have been printed."""
        assert self.code == 2, self
        assert self.stdout == "", self
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self
        assert lines[0].startswith("error: "), self
        return lines[0].removeprefix("error: ")


Run = Callable[..., Ended]


def make_run_folder(
    root: Path, *, average_precision: float = 40.0, recipe: Recipe | None = None, metrics: Sequence[str] = ("AP",)
) -> Path:
    """The small files of a run that was evaluated after its last iteration, all metrics alike; it has no weights."""
    recipe = recipe or load_recipe("quickstart")
    folder = RunFolder(root)
    folder.create(recipe, Categories(("ring",), (1,)), device="cpu")
    values = dict.fromkeys(metrics, average_precision)
    folder.append_metrics({"iteration": recipe.schedule.iterations, "evaluation": values})
    write_json(folder.evaluation_path, {"metrics": values})
    return root


def make_data_folder(
    root: Path, *, classes: Sequence[str] = ("cat", "dog"), file_name: str = "{split}{row}.png"
) -> Path:
    """Four 64 x 48 images a split, each with one box."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        names = [file_name.format(split=split, row=row) for row in range(4)]
        for row in range(4):
            Image.new("RGB", (64, 48), (40 * row, 90, 200)).save(root / "images" / f"{split}{row}.png")
        document = {
            "images": [{"id": row, "file_name": name, "width": 64, "height": 48} for row, name in enumerate(names)],
            "annotations": [
                {"id": row + 1, "image_id": row, "category_id": row % len(classes) + 1, "bbox": [8, 8, 24, 24]}
                for row in range(4)
            ],
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


def make_test_split(root: Path, *, names: Sequence[str]) -> Path:
    """A folder as COCO's for test-dev: a list of two images, without annotations, and a file that is not listed."""
    (root / "test2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images = [{"id": 7 * row + 5, "file_name": f"{row}.png", "width": 64, "height": 48} for row in range(2)]
    for row in range(3):
        Image.new("RGB", (64, 48), (40 * row, 90, 200)).save(root / "test2017" / f"{row}.png")
    document = {
        "info": {},
        "images": images,
        "categories": [{"id": label, "name": name} for label, name in enumerate(names, start=1)],
    }
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(document))
    return root
