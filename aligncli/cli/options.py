"""Options that several commands share, each written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Split(StrEnum):
    train = "train"
    val = "val"


class Evaluator(StrEnum):
    auto = "auto"
    hotcoco = "hotcoco"
    pycocotools = "pycocotools"


class Precision(StrEnum):
    bf16 = "bf16"
    fp16 = "fp16"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, or auto: CUDA where there is one.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe; repeatable. `aligncli recipes show` lists the keys.",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="Images with COCO annotations, instead of the recipe's data."),
]
SplitChoice = Annotated[Split, typer.Option("--split", help="Which part of the data.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as `aligncli train` makes it.")]
Source = Annotated[
    str, typer.Argument(metavar="FOLDER|shapes", help="Folder with COCO annotations, or the embedded shapes.")
]


def pick_device(name: str) -> str:
    """`auto` becomes the best device of this machine; every other name is the engine's to check."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
