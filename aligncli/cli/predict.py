"""`aligncli predict`: boxes on a user's own images, drawn and listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligncli.cli import options
from aligncli.cli.detector_choice import DetectorChoice
from aligncli.cli.outputs import require_folder
from aligncli.errors import DataError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from aligncli.cli.render import Output
    from aligncli.engine.inference import LoadedDetector

Images = Annotated[list[Path] | None, typer.Argument(metavar="IMAGE...", help="Image files.")]
PictureFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        parser=options.folder,
        help="Where the pictures go. Default: RUN/predictions, or predictions without a run.",
    ),
]
Score = Annotated[
    float,
    typer.Option(
        "--score",
        metavar="S",
        min=0.0,
        max=1.0,
        help="Drop detections below this score; the recipe drops those below its own cut.",
    ),
]


def predict(
    run: options.Detector,
    images: Images = None,
    *,
    out: PictureFolder = None,
    score: Score = 0.3,
    code: options.Code = None,
    weights: options.Weights = None,
    download: options.DownloadDefault = False,
    offline: options.Offline = False,
    amp: options.Amp = None,
    compiled: options.Compile = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Detect objects on your images and draw them.

    Writes a PNG file with boxes for each image and lists what was found."""
    from aligncli.cli.render import Output

    download = options.may_download(download=download, offline=offline)
    if not images:
        raise UserError("no images given: name one or more image files after the run folder")
    for path in images:
        _require_image_file(path)
    choice = DetectorChoice(
        source=run,
        parts=options.read_code(code),
        weights=weights,
        download=download,
        amp=amp,
        compiled=compiled,
        device=device,
    )
    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.detectors import is_torchvision

        choice = choice.checked()
    folder = out or (Path() if is_torchvision(run) else Path(run)) / "predictions"
    require_folder(folder)
    pictures = [folder / name for name in picture_names(images)]
    inputs = {image.resolve() for image in images}
    for picture in pictures:
        if picture.resolve() in inputs:
            raise DataError(f"the picture {picture} would replace an image that is read: choose another --out")
    detector = choice.load()
    listed, faults = _detect(detector, images, pictures, device=choice.device, score=score, output=output)
    if not listed:
        raise faults[0]
    for note in detector.notes:
        output.note(note)
    output.table(
        ("image", "best", "detections", "score"),
        [(Path(item["image"]).name, *best_of(item["detections"])) for item in listed],
        text_columns=2,
    )
    output.line(f"pictures: {folder}")
    output.data(listed)
    if faults:
        raise DataError(f"{len(faults)} of {len(images)} images were left out: {'; '.join(map(str, faults))}")


def _detect(
    detector: LoadedDetector,
    images: Sequence[Path],
    pictures: Sequence[Path],
    *,
    device: str,
    score: float,
    output: Output,
) -> tuple[list[dict[str, Any]], list[DataError]]:
    """A record of each image, whose picture is written; and what is wrong with those that cannot be read."""
    from aligncli.analysis.pictures import class_colours, draw_boxes
    from aligncli.engine.inference import predict_images

    names = detector.categories.names
    colours = class_colours(len(names))
    listed: list[dict[str, Any]] = []
    faults: list[DataError] = []
    found = predict_images(detector, images, device=device, score_threshold=score, unreadable=faults.append)
    with output.progress() as reporter:
        for path, image, detections in found:
            labels = detections["labels"].tolist()
            drawn = draw_boxes(
                image,
                detections["boxes"],
                [names[label] for label in labels],
                detections["scores"].tolist(),
                [colours[label] for label in labels],
            )
            picture = pictures[len(listed) + len(faults)]
            picture.parent.mkdir(parents=True, exist_ok=True)
            drawn.save(picture)
            listed.append({"image": str(path), "picture": str(picture), "detections": as_records(detections, names)})
            reporter.stage("detecting", done=len(listed) + len(faults), total=len(images))
    return listed, faults


def _require_image_file(path: Path) -> None:
    if (path / "recipe.json").is_file():
        raise DataError(f"image {path} is a run folder: name the run first, then the images")
    if path.is_dir():
        raise DataError(f"image {path} is a folder: name its images, such as {path}/*.jpg")
    if not path.is_file():
        raise DataError(f"image {path} does not exist: expected an image file")


def picture_names(images: Sequence[Path]) -> list[str]:
    """A PNG name for each image, all different: `dog.png`, and `dog-2.png` for a dog of another folder."""
    names: list[str] = []
    for image in images:
        name, count = f"{image.stem}.png", 1
        while name in names:
            count += 1
            name = f"{image.stem}-{count}.png"
        names.append(name)
    return names


def as_records(detections: Mapping[str, Tensor], names: Sequence[str]) -> list[dict[str, Any]]:
    """Class, score and xyxy box (pixels of the upright image), best first."""
    columns = zip(detections["labels"].tolist(), detections["scores"].tolist(), detections["boxes"].tolist())
    records = [
        {
            "class": names[label],
            "score": round(score, 4),
            "box": [round(coordinate, 2) for coordinate in box],
        }
        for label, score, box in columns
    ]
    return sorted(records, key=lambda record: -record["score"])


def best_of(records: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Class of the best detection, number of detections, best score."""
    if not records:
        return "-", "0", "-"
    return records[0]["class"], str(len(records)), f"{records[0]['score']:.2f}"
