"""Whether an exported file detects what the run's own detector does, on validation images.

Both see the very same pixels, placed as the contract says. Detections are paired by class and IoU, so that two whose
scores are equal may come in either order; differences are those of the pairs.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from aligncli.data.dataset import DetectionDataset
from aligncli.engine.export.contract import INPUT, Contract
from aligncli.engine.export.write import Format
from aligncli.engine.inference import LoadedRun
from aligncli.engine.metrics import compute_metrics, to_coco_results
from aligncli.engine.reporter import Reporter
from aligncli.errors import UserError, first_line

Run = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # images to boxes, scores, labels, see graph.py
Detections = dict[str, Tensor]
SAME_BOX = 0.9  # IoU
# Beyond float32's rounding in another order of sums, which may also turn an NMS at its threshold
MAX_SCORE_DIFFERENCE, MAX_AP_DIFFERENCE, MAX_UNPAIRED = 1e-2, 0.1, 0.01


@dataclass(frozen=True)
class Agreement:
    """The largest differences of paired detections (pixels of the input, scores), and AP in percent of both."""

    num_images: int
    num_own: int
    num_exported: int
    num_unpaired: int
    box_difference: float
    score_difference: float
    own_ap: float
    exported_ap: float

    @property
    def holds(self) -> bool:
        """Whether the file may stand in for the detector."""
        few = self.num_unpaired <= MAX_UNPAIRED * max(self.num_own, self.num_exported)
        undefined = math.isnan(self.own_ap) and math.isnan(self.exported_ap)
        same_ap = undefined or abs(self.own_ap - self.exported_ap) <= MAX_AP_DIFFERENCE
        return few and same_ap and self.score_difference <= MAX_SCORE_DIFFERENCE


def verify(
    content: bytes,
    format: Format,
    contract: Contract,
    loaded: LoadedRun,
    dataset: DetectionDataset,
    *,
    num_images: int,
    reporter: Reporter,
) -> Agreement:
    """Compare on the first `num_images` of the data set, on the CPU, with `loaded` on the CPU too."""
    run = open_onnx(content) if format is Format.onnx else open_torch(content)
    num_images = min(num_images, len(dataset))
    results: tuple[list[Any], list[Any]] = ([], [])
    image_ids, pairs = [], _Pairs()
    for index in range(num_images):
        image, target = contract.place(dataset[index], loaded)
        with torch.inference_mode():
            (own,) = loaded.model([image])
        found = detections_of(run(image.expand(contract.batch, -1, -1, -1)), contract.batch - 1)
        pairs.add(own, found)
        image_ids.append(target["image_id"])
        for result, one in zip(results, (own, found), strict=True):
            result += to_coco_results([one], [target], dataset.categories)
        reporter.evaluation(done=index + 1, total=num_images)
    truth = _of_images(dataset.ground_truth(), image_ids)
    own_ap, exported_ap = (
        compute_metrics(
            truth, result, evaluator=loaded.evaluation.evaluator, area_bins=loaded.evaluation.area_bins
        ).values["AP"]
        for result in results
    )
    return Agreement(
        num_images=num_images,
        num_own=len(results[0]),
        num_exported=len(results[1]),
        num_unpaired=pairs.num_unpaired,
        box_difference=pairs.box_difference,
        score_difference=pairs.score_difference,
        own_ap=own_ap,
        exported_ap=exported_ap,
    )


def open_onnx(content: bytes) -> Run:
    """An ONNX file in onnxruntime, on the CPU. Raises UserError where it lacks an operator."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        hint = "; --roi-conv grid_sample needs no DeformConv" if "DeformConv" in str(error) else ""
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot run the file ({first_line(error)}){hint}"
        ) from error

    def run(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, labels = (torch.from_numpy(np.asarray(x)) for x in session.run(None, {INPUT: images.numpy()}))
        return boxes, scores, labels

    return run


def open_torch(content: bytes) -> Run:
    """A file of torch.export."""
    return torch.export.load(io.BytesIO(content)).module()


def detections_of(outputs: tuple[Tensor, Tensor, Tensor], image: int) -> Detections:
    """One image's detections, without the rows that fill up, in the form that detectors give."""
    boxes, scores, labels = (output[image] for output in outputs)
    real = labels >= 0
    return {"boxes": boxes[real], "scores": scores[real], "labels": labels[real]}


class _Pairs:
    """Differences seen so far."""

    def __init__(self) -> None:
        self.num_unpaired = 0
        self.box_difference = 0.0
        self.score_difference = 0.0

    def add(self, own: Detections, other: Detections) -> None:
        """One image's detections of both."""
        iou = box_iou(own["boxes"].double(), other["boxes"].double())
        iou = iou.masked_fill(own["labels"][:, None] != other["labels"], -1.0)
        num_pairs = 0
        for row in range(len(iou)):  # by falling score, as NMS kept them
            best, column = iou[row].max(dim=0) if iou.shape[1] else (iou.new_tensor(-1.0), torch.tensor(0))
            if best < SAME_BOX:
                continue
            num_pairs += 1
            boxes = own["boxes"][row] - other["boxes"][column]
            self.box_difference = max(self.box_difference, float(boxes.abs().max()))
            scores = own["scores"][row] - other["scores"][column]
            self.score_difference = max(self.score_difference, float(scores.abs()))
            iou[:, column] = -1.0
        self.num_unpaired += len(own["boxes"]) + len(other["boxes"]) - 2 * num_pairs


def _of_images(truth: dict[str, Any], image_ids: list[int]) -> dict[str, Any]:
    """The part of a COCO document that is about these images."""
    wanted = set(image_ids)
    images = [record for record in truth["images"] if record["id"] in wanted]
    annotations = [record for record in truth["annotations"] if record["image_id"] in wanted]
    return {**truth, "images": images, "annotations": annotations}
