"""A run's detector as the bytes of an ONNX or PyTorch file."""

from __future__ import annotations

import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim, ExportedProgram

from aligncli.engine.export import class_nms
from aligncli.engine.export.contract import INPUT, METADATA, OUTPUTS, Contract
from aligncli.engine.export.graph import DetectionGraph
from aligncli.engine.export.lowering import Lowering, rows_function
from aligncli.engine.inference import LoadedRun
from aligncli.errors import UserError, first_line
from aligncli.models.detector import Detector

if TYPE_CHECKING:
    import onnx

OPSET = 20  # DeformConv came with 19, GridSample as it is now with 20
INSTALL = "pip install 'aligncli[export]'"
OPERATORS: Any = torch.ops.aligncli


class Format(StrEnum):
    """Which file is written."""

    torch = "torch"
    onnx = "onnx"

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return ".onnx" if self is Format.onnx else ".pt2"


def require_packages(format: Format) -> None:
    """Raises UserError, with the line that installs them, where ONNX's packages are missing."""
    if format is not Format.onnx:
        return
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"ONNX files need {package} ({first_line(error)}): {INSTALL}") from error


def write_detector(loaded: LoadedRun, format: Format, contract: Contract, lowering: Lowering) -> bytes:
    """The file's content. Raises UserError, naming what, where the detector cannot be exported."""
    program = trace_detector(loaded, contract)
    has_roi_conv = any(node.target is OPERATORS.roi_conv.default for node in program.graph.nodes)
    description = json.dumps(contract.describe(loaded, lowering if has_roi_conv else None))
    try:
        with _quiet():
            lowered = program.run_decompositions({OPERATORS.roi_conv.default: rows_function(lowering)})
            return _onnx_bytes(lowered, description) if format is Format.onnx else _torch_bytes(lowered, description)
    except Exception as error:
        raise UserError(
            f"recipe {loaded.name!r} cannot be written as {format.value} with --roi-conv {lowering.value}: "
            f"{first_line(error)}"
        ) from error


def trace_detector(loaded: LoadedRun, contract: Contract) -> ExportedProgram:
    """The computation of graph.py on `aligncli::roi_conv` and `aligncli::class_nms`. Raises UserError."""
    detector = loaded.model
    assert isinstance(detector, Detector)
    if type(detector).detect is not Detector.detect:
        raise UserError(
            f"recipe {loaded.name!r} cannot be exported: a {type(detector).__name__} detects in two stages, on as "
            "many proposals as it finds; one-stage detectors (RetinaNet, AlignDet and the like) can be"
        )
    graph = DetectionGraph(detector, num_classes=len(loaded.categories)).eval().requires_grad_(False)
    shapes = None
    if contract.size is None:
        cells = contract.least // contract.divisor
        sides = {axis: contract.divisor * Dim(name, min=cells) for axis, name in ((2, "rows"), (3, "columns"))}
        shapes = {"images": sides}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, (contract.example(),), dynamic_shapes=shapes)
    except Exception as error:
        hint = "" if contract.size else "; with a fixed --size HEIGHTxWIDTH it may be"
        raise UserError(f"recipe {loaded.name!r} cannot be exported ({first_line(error)}){hint}") from error


def _torch_bytes(program: ExportedProgram, description: str) -> bytes:
    program = program.run_decompositions({OPERATORS.class_nms.default: class_nms.in_torch})
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: description})
    return file.getvalue()


def _onnx_bytes(program: ExportedProgram, description: str) -> bytes:
    exported = torch.onnx.export(
        program,
        (),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        custom_translation_table={OPERATORS.class_nms.default: class_nms.in_onnx},
        verbose=False,
    )
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    model.metadata_props.add(key=METADATA, value=description)
    _, _, *sides = model.graph.input[0].type.tensor_type.shape.dim
    for side, name in zip(sides, ("height", "width"), strict=True):
        if side.dim_param:
            side.dim_param = name
    return model.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
