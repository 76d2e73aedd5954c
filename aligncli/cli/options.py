"""Options that several commands share, each written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli.completion import complete_run
from aligncli.errors import UserError

if TYPE_CHECKING:
    from aligncli.catalog import Parts

EMBEDDED = "shapes"


def folder(text: str) -> Path:
    """A folder as it is typed; an empty name, as of a variable that is not set, would be the working folder."""
    if not text:
        raise typer.BadParameter("it is empty: expected a folder")
    return Path(text)


def source(text: str) -> str:
    """EMBEDDED, or a folder as it is typed: one of that name is ./shapes."""
    folder(text)
    return text


class Split(StrEnum):
    train = "train"
    val = "val"


class Evaluator(StrEnum):
    auto = "auto"
    hotcoco = "hotcoco"
    pycocotools = "pycocotools"


class Scale(StrEnum):
    small = "small"
    coco = "coco"
    photo = "photo"


class LauncherKind(StrEnum):
    local = "local"
    slurm = "slurm"


class Precision(StrEnum):
    bf16 = "bf16"
    fp16 = "fp16"


class AnyPrecision(StrEnum):
    none = "none"
    bf16 = "bf16"
    fp16 = "fp16"


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps, or auto: CUDA where there is one.")
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
    typer.Option(
        "--data", metavar="FOLDER", parser=folder, help="Images with COCO annotations, instead of the recipe's data."
    ),
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="KEY=VALUE", help="Of the Slurm jobs, such as partition=gpu; repeatable."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="CPU threads. Default: torch's.")
]
SplitChoice = Annotated[Split, typer.Option("--split", help="Which part of the data.")]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", autocompletion=complete_run, help="Run folder, as `aligncli train` makes it.")
]
NewRun = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        parser=folder,
        help="Run folder. Default: runs/RECIPE-DATE-TIME.",
        show_default=False,
    ),
]
Detector = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete_run,
        help="Run folder, or torchvision:NAME such as torchvision:fcos_resnet50_fpn.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="default|none|PATH",
        help="Of torchvision:NAME: torchvision's own (default), random ones, or a .pth or .safetensors file.",
    ),
]
DownloadDefault = Annotated[bool, typer.Option("--download", help="Allow torchvision's own weights to be fetched.")]
Amp = Annotated[
    AnyPrecision | None, typer.Option("--amp", help="Precision to detect in. Default: what the run was trained in.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the detector first (torch.compile): minutes that pay on many images.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never fetch anything; contradicts --download.")]
Code = Annotated[
    Path | None,
    typer.Option(
        "--code", metavar="FILE.py", help="Your file that defines the recipe's own PARTS; it is code and is run."
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER|shapes", parser=source, help="Folder with COCO annotations, or the embedded shapes."
    ),
]


def read_code(path: Path | None) -> Parts:
    """The parts of a user's own in --code, where it is given. Runs that file. Raises RecipeError."""
    from aligncli.catalog import NO_PARTS, load_parts

    return NO_PARTS if path is None else load_parts(path)


def may_download(*, download: bool, offline: bool) -> bool:
    """Whether anything may be fetched: only where asked for. Raises UserError where it is forbidden as well."""
    if download and offline:
        raise UserError("--download and --offline contradict each other: drop one")
    return download


def limit_threads(number: int | None) -> None:
    """Let torch use `number` CPU threads in this process."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def pick_device(name: str) -> str:
    """`auto` becomes the best device of this machine; every other name is the engine's to check."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
