"""`aligncli data`: check a data folder, describe a data set, look at it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.completion import complete_recipe
from aligncli.cli.outputs import require_output
from aligncli.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from aligncli.cli.render import Output
    from aligncli.config import CocoConfig
    from aligncli.data.dataset import DetectionDataset
    from aligncli.data.stats import DatasetStats

SHEET_COLUMNS = 4

Picture = Annotated[Path, typer.Option("--out", metavar="PNG", help="Where the picture goes.")]
Count = Annotated[
    int, typer.Option("--count", metavar="N", min=1, max=400, help="How many images, spread over the split.")
]

Fix = Annotated[
    Path | None, typer.Option("--fix", metavar="OUT.json", help="Write a repaired copy of one split's annotations.")
]
StatsRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        autocompletion=complete_recipe,
        help="Whose input size and anchors are held against the boxes. Default: quickstart for shapes, else photo.",
        show_default=False,
    ),
]
FixSplit = Annotated[options.Split | None, typer.Option("--split", help="Which annotations --fix repairs.")]


def check(
    source: options.Source,
    *,
    fix: Fix = None,
    split: FixSplit = None,
    json: options.Json = False,
) -> None:
    """List what is wrong with a data folder.

    Looks at the annotations, decodes every image and compares the two splits.

    Prints one line for each fault. Exit code 0 if there is none, else 2. What is only worth knowing, such as
    CMYK or animated images, is a note. With --fix, a repaired copy of the annotations of --split is written
    instead, and nothing of the folder is changed.
    """
    from aligncli.catalog import data_in
    from aligncli.cli.render import Output

    output = Output(json=json)
    if (fix is None) != (split is None):
        raise UserError("--fix OUT.json writes one split's annotations: add --split train or val, or leave both out")
    if source == options.EMBEDDED:
        raise UserError(f"{source} is the embedded data, which code paints: there is no file to check or repair")
    layout = data_in(Path(source))
    with output.waiting():
        from aligncli.data.check import check_folder
        from aligncli.data.coco import data_root

        data_root(layout)
    if fix is not None and split is not None:
        _fix(layout, split, fix, output)
        return
    with output.progress(waiting="reading annotations") as reporter:
        found = check_folder(
            Path(source),
            images=layout.images,
            train_annotations=layout.train_annotations,
            val_annotations=layout.val_annotations,
            progress=lambda done, total: reporter.stage("images", done=done, total=total),
        )
    for line in (*found.faults, *(f"note: {note}" for note in found.notes)):
        output.line(line)
    output.data({"folder": source, "faults": found.faults, "notes": found.notes, "counts": dict(found.counts)})
    if found.faults:
        raise typer.Exit(2)
    output.line(f"{source}: no faults")


def _fix(layout: CocoConfig, split: options.Split, out: Path, output: Output) -> None:
    """Write a repaired copy, and say what was repaired."""
    with output.waiting():
        from aligncli.data.check import repair_split
        from aligncli.data.coco import annotation_path
        from aligncli.data.repair import describe
        from aligncli.engine.run_folder import write_json
    for own in options.Split:
        path = annotation_path(layout, own.value)
        if out.exists() and path.exists() and out.samefile(path):
            what = "is the file that is to be repaired" if own is split else f"holds the {own.value} annotations"
            raise UserError(f"--fix {out} {what}: name another one")
    require_output(out, ".json", option="--fix")
    out.parent.mkdir(parents=True, exist_ok=True)  # before images are read for minutes
    with output.progress(waiting="reading annotations") as reporter:
        document, done = repair_split(
            layout,
            split.value,
            progress=lambda done, total: reporter.stage("images", done=done, total=total),
        )
    write_json(out, document, indent=None)
    for line in describe(done) or ["nothing to repair"]:
        output.line(line)
    counts = {"images": len(document["images"]), "annotations": len(document["annotations"])}
    output.line(f"{out}: {counts['images']:,} images, {counts['annotations']:,} annotations")
    output.data({"file": str(out), "repairs": dict(done), **counts})


def stats(
    source: options.Source,
    *,
    split: options.SplitChoice = options.Split.train,
    recipe: StatsRecipe = None,
    json: options.Json = False,
) -> None:
    """Count classes, measure boxes, and say how well anchors cover them.

    The box shapes tell which sizes and aspects anchors have to cover. How well a recipe's anchors, one and nine of
    them a cell, and the boxes that a 3x3 convolution looks at (implicit RoIs, equation 3) do so: the mean over
    objects of the best IoU, and the share of objects that one of them meets with IoU .5.
    """
    from aligncli.catalog import load_recipe
    from aligncli.cli.render import Output
    from aligncli.cli.tables import number

    output = Output(json=json)
    chosen = load_recipe(recipe or ("quickstart" if source == options.EMBEDDED else "photo"))
    with output.waiting("counting"):
        from aligncli.analysis.coverage import measure_coverage
        from aligncli.data.stats import dataset_stats

        dataset = open_dataset(source, split)
        found = dataset_stats(dataset)
        coverage = measure_coverage(dataset, chosen)
    output.heading(source, f"{split.value} split")
    output.fields(describe_stats(found))
    shapes = (("size, sqrt(w h), pixels", found.box_sizes, 0), ("aspect, w / h", found.box_aspects, 2))
    output.table(
        ("boxes", "5 %", "25 %", "50 %", "75 %", "95 %"),
        [(name, *(f"{value:.{digits}f}" for value in values)) for name, values, digits in shapes],
    )
    total = max(1, sum(found.boxes_per_class.values()))
    output.table(
        ("class", "boxes", "share"),
        [(name, f"{count:,}", f"{count / total:.1%}") for name, count in found.boxes_per_class.items()],
    )
    output.table(
        (chosen.name, "boxes a cell", "mean best IoU", "recall at .5"),
        [
            (item.name, str(item.num_per_cell), number(item.mean_best_iou, 2), number(100 * item.recall))
            for item in coverage
        ],
    )
    output.data(
        {
            "source": source,
            "split": split.value,
            **dataclasses.asdict(found),
            "recipe": chosen.name,
            "coverage": [dataclasses.asdict(item) for item in coverage],
        }
    )


def view(
    source: options.Source,
    *,
    out: Picture = Path("data-view.png"),
    split: options.SplitChoice = options.Split.train,
    count: Count = 12,
    json: options.Json = False,
) -> None:
    """Draw a sheet of images with their boxes."""
    from aligncli.analysis.pictures import contact_sheet
    from aligncli.cli.render import Output

    require_output(out, ".png")
    output = Output(json=json)
    dataset = open_dataset(source, split)
    out.parent.mkdir(parents=True, exist_ok=True)
    shown = min(count, len(dataset))
    indices = [step * len(dataset) // shown for step in range(shown)]
    pictures = [draw_ground_truth(dataset, index) for index in indices]
    sheet = contact_sheet(pictures, columns=min(SHEET_COLUMNS, shown), titles=[f"image {index}" for index in indices])
    sheet.save(out, format="PNG")
    output.line(f"{out}: {shown} of {len(dataset):,} {split.value} images of {source}")
    output.data({"picture": str(out), "indices": indices})


def open_dataset(source: str, split: options.Split) -> DetectionDataset:
    """One split of the embedded shapes or of a COCO folder. Raises DataError."""
    from aligncli.build import build_dataset
    from aligncli.catalog import load_recipe, on_folder

    recipe = load_recipe("quickstart") if source == options.EMBEDDED else on_folder(load_recipe("photo"), Path(source))
    return build_dataset(recipe, split.value)


def describe_stats(found: DatasetStats) -> dict[str, str]:
    """The counts in words."""
    empty, crowds = found.num_images_without_boxes, found.num_crowd
    return {
        "images": f"{found.num_images:,}" + (f", {empty:,} of them without boxes" if empty else ""),
        "width": _range(found.image_widths),
        "height": _range(found.image_heights),
        "boxes": f"{found.num_boxes:,}" + (f", {crowds:,} of them crowd regions" if crowds else ""),
        "classes": str(len(found.boxes_per_class)),
    }


def _range(limits: tuple[int, int]) -> str:
    smallest, largest = limits
    return f"{smallest} pixels" if smallest == largest else f"{smallest} to {largest} pixels"


def draw_ground_truth(dataset: DetectionDataset, index: int) -> Image.Image:
    """Image `index` with its boxes, each class in its own colour."""
    from PIL import Image

    from aligncli.analysis.pictures import class_colours, draw_boxes

    image, target = dataset[index]
    names = dataset.categories.names
    colours = class_colours(len(names))
    labels = target["labels"].tolist()
    tags = [
        f"{names[label]} (crowd)" if crowd else names[label]
        for label, crowd in zip(labels, target["crowd"].tolist(), strict=True)
    ]
    return draw_boxes(
        Image.fromarray(image.permute(1, 2, 0).numpy()),
        target["boxes"],
        tags,
        colours=[colours[label] for label in labels],
    )
