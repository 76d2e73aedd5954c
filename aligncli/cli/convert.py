"""`aligncli data convert` and `data split`: other people's formats as folders that everything here takes."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligncli.cli import options
from aligncli.cli.outputs import require_folder
from aligncli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aligncli.cli.render import Output


class Format(StrEnum):
    yolo = "yolo"
    voc = "voc"


FormatChoice = Annotated[
    Format,
    typer.Argument(metavar="yolo|voc", help="YOLO: images/, labels/, data.yaml; VOC: Annotations/."),
]
SourceFolder = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", parser=options.folder, help="The data set's own folder; it stays as it is."),
]
NewFolder = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", parser=options.folder, help="A new folder, in COCO's format.")
]
AnnotationFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", parser=options.folder, help="Where the two files go. Default: beside FILE."
    ),
]
ValShare = Annotated[
    float, typer.Option("--val-share", metavar="S", min=0.0, max=1.0, help="Share of images that are put aside.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Which images are put aside.")]
Link = Annotated[bool, typer.Option("--link", help="Hard links to the images instead of copies.")]
AnnotationFile = Annotated[Path, typer.Argument(metavar="FILE.json", help="All annotations, in COCO's format.")]


def convert(
    source_format: FormatChoice,
    source: SourceFolder,
    *,
    out: NewFolder,
    val_share: ValShare = 0.2,
    seed: Seed = 0,
    link: Link = False,
    json: options.Json = False,
) -> None:
    """Make a COCO folder of a YOLO or Pascal VOC data set.

    Splits that the source names are kept; otherwise --val-share of its images are put aside.
    `aligncli train --data FOLDER` takes the new folder.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    require_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"--out {out} exists and is not empty: name a new folder")
    with output.waiting():
        from aligncli.data.convert import convert as convert_source
        from aligncli.data.voc import read_voc
        from aligncli.data.yolo import read_yolo
    if not source.is_dir():
        raise DataError(f"{source} {'is a file: expected a folder' if source.exists() else 'does not exist'}")
    read = read_yolo if source_format is Format.yolo else read_voc
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with output.progress(waiting="reading the source") as reporter:
            documents = convert_source(
                read(source),
                unfinished / "images",
                val_share=val_share,
                seed=seed,
                link=link,
                progress=lambda done, total: reporter.stage("images", done=done, total=total),
            )
        _write(documents, unfinished / "annotations")
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _report(documents, out, output)


def split(
    annotations: AnnotationFile,
    *,
    out: AnnotationFolder = None,
    val_share: ValShare = 0.2,
    seed: Seed = 0,
    json: options.Json = False,
) -> None:
    """Split one annotation file into instances_train.json and instances_val.json, by image.

    The same seed puts the same images aside. Files that exist are never overwritten.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    folder = out or annotations.parent
    require_folder(folder)
    for name in ("train", "val"):
        if (folder / f"instances_{name}.json").exists():
            raise DataError(f"{folder / f'instances_{name}.json'} exists: name another folder with --out")
    with output.waiting("reading annotations"):
        from aligncli.data.coco_faults import find_faults, read_document
        from aligncli.data.convert import split_document

        document = read_document(annotations, masks=True)
        fault = next((fault for fault in find_faults(document) if fault.fatal), None)
        if fault is not None:
            raise DataError(f"{annotations}: {fault}")
        documents = split_document(document, val_share=val_share, seed=seed)
    _write(documents, folder)
    _report(documents, folder, output)


def _write(documents: Mapping[Any, Mapping[str, Any]], folder: Path) -> None:
    from aligncli.engine.run_folder import write_json

    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        write_json(folder / f"instances_{name}.json", document, indent=None)


def _report(documents: Mapping[Any, Mapping[str, Any]], out: Path, output: Output) -> None:
    counts = {
        name: {"images": len(document["images"]), "boxes": len(document["annotations"])}
        for name, document in documents.items()
    }
    for name, count in counts.items():
        output.line(f"{name}: {count['images']:,} images, {count['boxes']:,} boxes")
    classes = [category["name"] for category in documents["train"]["categories"]]
    output.line(f"{len(classes)} classes: {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}")
    output.line(f"in {out}")
    output.data({"folder": str(out), "classes": classes, **counts})
