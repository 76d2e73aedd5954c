"""Which commands set what the library leaves alone, for the process they run in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.command_line import TINY_SHAPES, Run


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--out", "{out}", *TINY_SHAPES),
        ("eval", "{run}"),
        ("predict", "{run}", "{image}", "--out", "{out}"),
        ("report", "{run}", "--out", "{out}/report.html"),
        ("analyze-alignment", "{run}", "--images", "1", "--out", "{out}"),
    ],
    ids=lambda command: command[0],
)
def test_products_have_the_precision_of_convolutions(
    run: Run, trained_run: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    _run(run, command, trained_run, tmp_path)
    assert torch.backends.cuda.matmul.allow_tf32


def _run(run: Run, command: tuple[str, ...], trained_run: Path, folder: Path) -> None:
    image = folder / "image.png"
    if "{image}" in command:
        Image.new("RGB", (64, 64)).save(image)
    words = [word.format(run=trained_run, image=image, out=folder / "out") for word in command]
    ended = run(*words, "--device", "cpu")
    assert ended.code == 0, ended.stderr
