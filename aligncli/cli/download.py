"""`aligncli data download`: a public data set, only because it was asked for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncli.cli import options
from aligncli.cli.outputs import require_folder


class DataSet(StrEnum):
    coco = "coco"


DataSetName = Annotated[DataSet, typer.Argument(metavar="NAME", help="coco: COCO's train2017 and val2017.")]
NewFolder = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FOLDER", parser=options.folder, help="Where it goes; what is there already is kept."
    ),
]
ValOnly = Annotated[bool, typer.Option("--val-only", help="Leave out the training images: 1 GB instead of 20.")]


def download(
    name: DataSetName,
    *,
    out: NewFolder = Path("coco"),
    val_only: ValOnly = False,
    json: options.Json = False,
) -> None:
    """Fetch COCO from its own server, check it and unpack it.

    Stopped or cut off, the same command goes on where it was. Each archive is held against its size and MD5, and
    removed when it is unpacked; the disk must have room for both. COCO's terms of use: https://cocodataset.org.
    """
    from aligncli.cli.render import Output
    from aligncli.data import download as coco

    assert name is DataSet.coco  # the only one so far
    output = Output(json=json)
    require_folder(out)
    wanted = [archive for archive in coco.COCO if not (val_only and archive == coco.TRAIN)]
    missing = coco.missing(wanted, out)
    coco.require_room(missing, out)
    size = sum(archive.num_bytes for archive in missing) / 1e9
    if missing:
        output.note(f"{size:.1f} GB from {coco.SERVER} into {out}")
    with output.progress(waiting="asking the server") as reporter:
        for archive in missing:
            coco.get(archive, out, lambda stage, done, total: reporter.stage(stage, done=done, total=total))
    for archive in wanted:
        output.line(f"{out / archive.folder}{'' if archive in missing else ' was there'}")
    if not val_only:
        output.line(f"train on it: aligncli train aligndet_r50 --data {out} --download")
    output.data({"folder": str(out), "fetched": [archive.folder for archive in missing]})
