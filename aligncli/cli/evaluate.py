"""`aligncli eval`: the COCO protocol on a run folder, a torchvision detector, or two JSON files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligncli.cli import options
from aligncli.cli.completion import complete_run
from aligncli.cli.detector_choice import DetectorChoice
from aligncli.cli.outputs import require_detections_or_nothing
from aligncli.errors import MissingChoice, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aligncli.cli.render import Output
    from aligncli.data.dataset import Split


class EvalSplit(StrEnum):
    train = "train"
    val = "val"
    test = "test"


OptionalDetector = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        autocompletion=complete_run,
        help="Run folder, or torchvision:NAME such as torchvision:fcos_resnet50_fpn.",
    ),
]
AnnotationFile = Annotated[
    Path | None, typer.Option("--annotations", metavar="JSON", help="COCO ground truth; with --detections.")
]
DetectionFile = Annotated[
    Path | None, typer.Option("--detections", metavar="JSON", help="COCO results; with --annotations.")
]
EvaluatorChoice = Annotated[
    options.Evaluator | None,
    typer.Option("--evaluator", help="Who computes the metrics. Default: the recipe's, or auto."),
]
PerClass = Annotated[bool, typer.Option("--per-class", help="Also AP for each class.")]
SplitChoice = Annotated[
    EvalSplit, typer.Option("--split", help="Which part of the data. test: COCO's test-dev, detections alone.")
]
Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE.json", help="Also write the detections, in COCO's result format."),
]


def evaluate(
    run: OptionalDetector = None,
    *,
    data: options.DataFolder = None,
    split: SplitChoice = EvalSplit.val,
    save: Save = None,
    annotations: AnnotationFile = None,
    detections: DetectionFile = None,
    evaluator: EvaluatorChoice = None,
    per_class: PerClass = False,
    code: options.Code = None,
    weights: options.Weights = None,
    download: options.DownloadDefault = False,
    offline: options.Offline = False,
    amp: options.Amp = None,
    compiled: options.Compile = False,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Compute the COCO metrics of a run, of a torchvision detector or of a result file.

    `aligncli eval RUN` detects on the run's validation images (or on --data), `aligncli eval torchvision:NAME
    --data FOLDER` with one of torchvision's detectors. `aligncli eval --annotations A.json --detections D.json`
    needs no model. `aligncli eval RUN --split test --data COCO --save FILE.json` writes what COCO's server scores.
    """
    from aligncli.cli.render import Output

    download = options.may_download(download=download, offline=offline)
    output = Output(json=json)
    files = annotations is not None and detections is not None
    if files == (run is not None) or (not files and (annotations or detections)):
        message = "give either a RUN folder, or both --annotations JSON and --detections JSON"
        given = run or annotations or detections
        raise UserError(message) if given else MissingChoice(message, option="RUN")
    if annotations is not None and detections is not None:
        if data is not None:
            raise UserError("--data goes with a RUN folder: with --annotations, the images are not read")
        if save is not None or split is EvalSplit.test or amp is not None or compiled:
            raise UserError(
                "--save, --split test, --amp and --compile go with a RUN folder: --annotations detects nothing"
            )
        _score_files(annotations, detections, evaluator=evaluator, per_class=per_class, output=output)
        return
    if save is not None:
        require_detections_or_nothing(save, option="--save")
    choice = DetectorChoice(
        source=run or "",
        parts=options.read_code(code),
        weights=weights,
        download=download,
        amp=amp,
        compiled=compiled,
        device=device,
    )
    if split is EvalSplit.test:
        if save is None:
            raise UserError("--split test needs --save FILE.json: COCO's server scores test-dev, from that file")
        if evaluator or per_class:
            raise UserError("--evaluator and --per-class need annotations, and test-dev's are with COCO's server")
        _detect_test(choice, data=data, save=save, output=output)
    else:
        _evaluate_detector(
            choice,
            data=data,
            split="train" if split is EvalSplit.train else "val",
            save=save,
            evaluator=evaluator,
            per_class=per_class,
            output=output,
        )


def _score_files(
    annotations: Path,
    detections: Path,
    *,
    evaluator: options.Evaluator | None,
    per_class: bool,
    output: Output,
) -> None:
    from aligncli.config import EvaluationConfig
    from aligncli.engine.metrics import score_files

    scored = score_files(
        annotations, detections, evaluator=evaluator.value if evaluator else "auto", per_class=per_class
    )
    _show(
        output,
        scored.values,
        scored.per_class,
        title=f"{detections} ({scored.evaluator})",
        area_bins=EvaluationConfig().area_bins,
    )


def _evaluate_detector(
    choice: DetectorChoice,
    *,
    data: Path | None,
    split: Split,
    save: Path | None,
    evaluator: options.Evaluator | None,
    per_class: bool,
    output: Output,
) -> None:
    from aligncli.cli.progress import duration

    with output.waiting():  # torch takes seconds to import
        from aligncli.config import EvaluationConfig
        from aligncli.engine.detectors import is_torchvision
        from aligncli.engine.evaluate import evaluate_on_folder, evaluate_run
        from aligncli.engine.run_folder import RunFolder
        from aligncli.engine.submission import make_way, write_detections

        choice = choice.checked()
    if save is not None:
        make_way(save)
    source = choice.source
    how: dict[str, Any] = {
        "split": split,
        "device": choice.device,
        "evaluator": evaluator.value if evaluator else None,
        "per_class": per_class,
    }
    if not is_torchvision(source):
        recipe = RunFolder(Path(source)).read_recipe()
        with output.progress() as reporter:
            evaluation = evaluate_run(
                Path(source),
                data=data,
                parts=choice.parts,
                amp=choice.precision,
                compiled=choice.compiled,
                reporter=reporter,
                **how,
            )
        area_bins, paper, images = recipe.evaluation.area_bins, "" if data else recipe.paper, data or recipe.data.kind
    elif data is None:
        raise UserError(f"{source} has no data of its own: add --data FOLDER, with images and COCO annotations")
    else:
        with output.progress() as reporter:
            evaluation = evaluate_on_folder(choice.load(), data, reporter=reporter, **how)
        area_bins, paper, images = EvaluationConfig().area_bins, "", data
    _show(
        output,
        evaluation.metrics,
        evaluation.per_class,
        title=f"{source}, {images} {split} split, {evaluation.num_images:,} images",
        area_bins=area_bins,
        paper=paper,
    )
    output.line(
        f"{len(evaluation.detections):,} detections in {duration(evaluation.seconds)}, scored by {evaluation.evaluator}"
    )
    if save is not None:
        write_detections(save, evaluation.detections)
        output.line(f"{save}: the detections, in COCO's result format")


def _detect_test(choice: DetectorChoice, *, data: Path | None, save: Path, output: Output) -> None:
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.submission import SERVER_NAME, submit

        choice = choice.checked()
    with output.progress() as reporter:
        written = submit(choice.load(), data, save, device=choice.device, reporter=reporter)
    output.line(f"{written.path}: {written.num_detections:,} detections on {written.num_images:,} images")
    output.line(f"For COCO's server, name it {SERVER_NAME} with your name for ALG, and zip it under the same name")
    output.data({"detections": written.num_detections, "images": written.num_images, "file": str(written.path)})


def _show(
    output: Output,
    metrics: Mapping[str, float],
    per_class: Mapping[str, float],
    *,
    title: str,
    area_bins: tuple[float, float],
    paper: str = "",
) -> None:
    from aligncli.cli.describe import show_metrics
    from aligncli.cli.tables import number

    show_metrics(output, metrics, title=title, area_bins=area_bins, paper=paper)
    if per_class:
        output.table(("class", "AP"), [(name, number(value)) for name, value in per_class.items()])
    output.data({**metrics, "per_class": per_class} if per_class else metrics)
