"""A command line run in this process, a data folder made in code, and one tiny trained run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aligncli.cli.app import main

TINY = ["--set", "schedule.iterations=2", "--set", "schedule.batch_size=2", "--set", "schedule.log_every=1"]
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


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `aligncli ARGUMENTS` through its real entry point."""

    def run_main(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Ended(exit_.value.code, captured.out, captured.err)

    return run_main


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
                {"id": row + 1, "image_id": row, "category_id": row % len(classes), "bbox": [8, 8, 24, 24]}
                for row in range(4)
            ],
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A sound COCO folder of two classes."""
    return make_data_folder(tmp_path / "data")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two iterations on shapes."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--device", "cpu", "--out", str(run_dir), *TINY_SHAPES])
    assert exit_.value.code == 0
    return run_dir
