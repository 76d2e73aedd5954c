"""Which commands set what the library leaves alone, for the process they run in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from aligncli.analysis.bench import fairness
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


def test_bench_has_every_contender_in_full_precision(
    run: Run, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fairness.PRODUCT_SIDES, "cpu", 64)  # this machine's own rate takes a moment instead of seconds
    monkeypatch.setattr(fairness, "COPIED", 1 << 20)
    torch.backends.cuda.matmul.allow_tf32 = False
    command = ("bench", "model", "{run}", "--quick", "--height", "64", "--width", "64", "--seconds", "0.1")
    _run(run, command, trained_run, tmp_path)
    assert not torch.backends.cuda.matmul.allow_tf32


def _run(run: Run, command: tuple[str, ...], trained_run: Path, folder: Path) -> None:
    image = folder / "image.png"
    if "{image}" in command:
        Image.new("RGB", (64, 64)).save(image)
    words = [word.format(run=trained_run, image=image, out=folder / "out") for word in command]
    ended = run(*words, "--device", "cpu")
    assert ended.code == 0, ended.stderr
