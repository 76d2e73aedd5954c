"""`aligncli export`: a run's detector as a file that runs without aligncli."""

from __future__ import annotations

import re
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncli.cli import options
from aligncli.cli.outputs import require_output
from aligncli.errors import UserError


class FileFormat(StrEnum):
    onnx = "onnx"
    torch = "torch"


class RoIConvAs(StrEnum):
    deform_conv = "deform_conv"
    grid_sample = "grid_sample"


FormatChoice = Annotated[
    FileFormat, typer.Option("--format", help="onnx: ONNX opset 20. torch: a program of torch.export (.pt2).")
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Default: RUN/model.onnx or RUN/model.pt2.", show_default=False),
]
Size = Annotated[
    str,
    typer.Option(
        "--size",
        metavar="HxW|any",
        help="Height and width of the input, as 480x640; or any, in steps of input.size_divisor.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, max=1024, help="Images that it takes at once.")]
RoIConvChoice = Annotated[
    RoIConvAs,
    typer.Option("--roi-conv", help="Operator that RoIConv is written as; grid_sample where DeformConv is lacking."),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Compare it with the run on validation images; write it only if it agrees.")
]
NumImages = Annotated[int, typer.Option("--images", metavar="N", min=1, help="Images that --verify compares on.")]


def export(
    run: options.Run,
    *,
    format: FormatChoice = FileFormat.onnx,
    out: OutFile = None,
    size: Size = "any",
    batch: Batch = 1,
    roi_conv: RoIConvChoice = RoIConvAs.deform_conv,
    verify: Verify = False,
    images: NumImages = 50,
    data: options.DataFolder = None,
    code: options.Code = None,
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Write a run's detector as a file that runs without aligncli: in onnxruntime, or in PyTorch.

    From images in 0..1 to boxes, scores and labels; normalisation and NMS are inside. docs/export.md has a script that
    uses it. `aligncli export RUN --verify` compares both on 50 validation images.
    """
    from aligncli.cli.render import Output

    if data is not None and not verify:
        raise UserError("--data goes with --verify: without it, no images are read")
    sides = _read_size(size)
    parts = options.read_code(code)
    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.export.export_run import export_run
        from aligncli.engine.export.lowering import Lowering
        from aligncli.engine.export.write import Format

        options.limit_threads(threads)
    chosen = Format(format.value)
    if out is not None:
        require_output(out, chosen.suffix)
    with output.progress(waiting="exporting, which takes up to some minutes") as reporter:
        exported = export_run(
            run,
            out or run / f"model{chosen.suffix}",
            format=chosen,
            size=sides,
            batch=batch,
            lowering=Lowering(roi_conv.value),
            verify_images=images if verify else 0,
            data=data,
            parts=parts,
            reporter=reporter,
        )
    contract, agreement = exported.contract, exported.agreement
    height, width = contract.size or ("height", "width")
    output.line(f"{exported.path}: {exported.num_bytes / 1e6:.1f} MB")
    output.line(f"images ({batch}, 3, {height}, {width}) float32 RGB in 0..1 -> boxes, scores, labels: docs/export.md")
    if contract.size is None:
        output.line(f"height and width: multiples of {contract.divisor}, at least {contract.least}")
    if agreement is not None:
        output.table(
            ("", "AP", "detections"),
            [
                ("the run", f"{agreement.own_ap:.2f}", f"{agreement.num_own:,}"),
                ("the file", f"{agreement.exported_ap:.2f}", f"{agreement.num_exported:,}"),
            ],
            title=f"on {agreement.num_images} validation images",
        )
        output.line(
            f"largest differences: boxes {agreement.box_difference:.2g} pixels, scores "
            f"{agreement.score_difference:.2g}; {agreement.num_unpaired} detections without a counterpart"
        )
    output.data(
        {
            "file": str(exported.path),
            "bytes": exported.num_bytes,
            "format": chosen.value,
            "input": [batch, 3, height, width],
            "multiple_of": contract.divisor,
            "verified": asdict(agreement) if agreement else None,
        }
    )


def _read_size(text: str) -> tuple[int, int] | None:
    """Height and width of "480x640"; None for "any". Raises UserError."""
    if text == "any":
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise UserError(f"--size {text!r}: expected HEIGHTxWIDTH in pixels, as 480x640, or any")
    return int(found[1]), int(found[2])
