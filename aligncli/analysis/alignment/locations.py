"""What a one-stage detector looks at, and what it predicts from there, at every location.

A location is one box of one cell. Its implicit RoI is the box that the deciding convolution reads: eq. 3 for a
plain convolution at the map's stride, for AlignDet's aligned one what its variant says. Boxes are xyxy pixels of
the images as passed. torchvision_locations.py does the same for torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aligncli.analysis.alignment.taps import alignment_taps, deciding_kernel, offsets_seen_by
from aligncli.anchors import AnchorGenerator
from aligncli.boxes import clip_boxes
from aligncli.errors import UserError
from aligncli.models import align
from aligncli.models.aligndet import AlignDet
from aligncli.models.dense_detector import DenseDetector
from aligncli.models.detector import Detector, Geometry
from aligncli.models.heads.aligned_anchors import AlignedAnchorsHead
from aligncli.models.postprocess import Candidates
from aligncli.models.refinedet import RefineDet
from aligncli.ops import DeformableConv2d, deformed_taps, implicit_rois, roi_taps, rois_of_offsets

ALIGNMENT_TITLES: dict[type[nn.Module], str] = {
    align.ConvAlignment: "conv",
    align.DeformAlignment: "deformable conv",
    align.GuidedAlignment: "anchor-guided conv",
    align.RoIConvAlignment: "RoIConv",
}


@dataclass(frozen=True)
class Locations:
    """R locations of one level, for each of N images.

    Args:
        pairs: boxes (N, R, 4) and the implicit RoIs (N, R, 4) they are compared with, by the boxes' name. The first
            pair is what the detector predicts from, that of Figure 4.
        final: (N, R, 4) predicted boxes, inside the image.
        scores: (N, R) the best final class score, 0..1.
        real: (N, R) bool: the cell's centre lies in the image, not in its padding.
        taps: gives (N, R, K, 2) x, y in pixels: where the convolution reads. A function: only pictures need them.
    """

    level: str
    pairs: dict[str, tuple[Tensor, Tensor]]
    final: Tensor
    scores: Tensor
    real: Tensor
    taps: Callable[[], Tensor]

    @property
    def boxes(self) -> Tensor:
        """(N, R, 4) of the first pair."""
        return next(iter(self.pairs.values()))[0]

    @property
    def implicit(self) -> Tensor:
        """(N, R, 4) of the first pair."""
        return next(iter(self.pairs.values()))[1]


class Observer(Protocol):
    """A detector, opened up. `title` says in a few words whose implicit RoIs it shows.

    `remarks` are what a reader of the numbers should know, one line each; complete after the first batch.
    """

    title: str
    remarks: list[str]

    def __call__(self, images: Sequence[Tensor]) -> list[Locations]:
        """One Locations a level, for images (3, h, w), float 0..1."""
        ...


def observe_detector(model: nn.Module) -> Observer:
    """The observer of one of our one-stage detectors. Raises UserError for what has no implicit RoIs."""
    match model:
        case AlignDet():
            return AlignDetObserver(model)
        case DenseDetector() | RefineDet():
            return DenseObserver(model)
    raise UserError(
        f"a {type(model).__name__} is no one-stage detector: it has no implicit RoIs that analyze-alignment could show"
    )


class AlignDetObserver:
    """Refined anchors against what the alignment variant reads for them (Figure 4), and the same for initial anchors.

    The initial anchor is where training starts. There a plain convolution agrees with its anchor as well as scale
    and stride allow; refining is what drives them apart.
    """

    def __init__(self, model: AlignDet) -> None:
        self.model = model
        self.title = describe_alignment(model.adm.trunk.alignment)
        if model.adm.finest_trunk is not None:
            self.title += f", finest level {describe_alignment(model.adm.finest_trunk.alignment)}"
        self.remarks: list[str] = []

    def __call__(self, images: Sequence[Tensor]) -> list[Locations]:
        """See Observer."""
        model = self.model
        features, geometry = _features(model, images)
        generator = getattr(model.dpm, "anchors", None)
        initial: list[Tensor] = []  # an anchor-free DPM has none
        if isinstance(generator, AnchorGenerator):
            initial = generator.for_levels(geometry.shapes, geometry.strides, device=geometry.sizes.device)
        levels = []
        for index, candidates in enumerate(model.candidates(features, geometry)):
            alignment, stride = self._alignment(index), geometry.strides[index]
            refined = candidates.references
            boxes = {"refined anchors": refined}
            if initial:
                boxes["initial anchors"] = initial[index].expand_as(refined)
            pairs = {
                name: (each, alignment.implicit_rois([features[index]], [each], [stride])[0].float())
                for name, each in boxes.items()
            }
            taps = partial(alignment_taps, alignment, features[index], refined, stride)
            levels.append(_locations(candidates, geometry, index, pairs=pairs, taps=taps))
        return levels

    def _alignment(self, level: int) -> Any:
        finest = self.model.adm.finest_trunk
        return self.model.adm.trunk.alignment if finest is None or level > 0 else finest.alignment


class DenseObserver:
    """Reference boxes, and the boxes decoded from them, against what the class predictor reads there.

    That is eq. 3 for a plain convolution, which all anchors of a cell share; where the taps of a deformable
    convolution lie (Guided Anchoring, RepPoints); the anchors themselves for a RoIConv on them (section 5.2).
    Anchor-free heads have no reference boxes.
    """

    def __init__(self, model: DenseDetector | RefineDet) -> None:
        head = model.odm if isinstance(model, RefineDet) else model.head
        self.model = model
        self.deformable = next(
            (x for name, x in head.named_modules() if isinstance(x, DeformableConv2d) and name.startswith("class")),
            None,
        )
        self.is_aligned = isinstance(head, AlignedAnchorsHead)
        self.kernel_size = deciding_kernel(head)
        kind = "RoIConv" if self.is_aligned else "deformable conv" if self.deformable else "conv"
        self.title = f"{kind} {self.kernel_size}×{self.kernel_size}"
        self.remarks: list[str] = []

    def __call__(self, images: Sequence[Tensor]) -> list[Locations]:
        """See Observer."""
        features, geometry = _features(self.model, images)
        with offsets_seen_by(self.deformable) as offsets:
            candidates_of_levels = self.model.candidates(features, geometry)
        levels = []
        for index, candidates in enumerate(candidates_of_levels):
            references, stride = candidates.references, geometry.strides[index]
            plain = _grid_of_rois(geometry, index, self.kernel_size, like=candidates.values)
            implicit, taps = plain, partial(roi_taps, plain, self.kernel_size, stride)
            if self.is_aligned:
                implicit = references.expand_as(plain)
                taps = partial(roi_taps, implicit, self.kernel_size, stride)
            elif offsets:
                implicit = rois_of_offsets(offsets[index].float(), self.kernel_size, stride).flatten(1, 2)
                taps = partial(deformed_taps, offsets[index].float(), self.kernel_size, stride)
            boxes = {"decoded boxes": _final_boxes(candidates, geometry)}
            if not _are_cells(references, geometry, index):
                name = "anchors" if references.dim() == 2 else "refined anchors"
                boxes = {name: references.expand_as(plain)} | boxes
            pairs = {name: (each, implicit) for name, each in boxes.items()}
            levels.append(_locations(candidates, geometry, index, pairs=pairs, taps=taps))
        return levels


def describe_alignment(alignment: nn.Module) -> str:
    """Name and kernel in a few words, for tables and legends. Raises UserError where it has no implicit RoIs."""
    if not hasattr(alignment, "implicit_rois"):
        raise UserError(
            f"alignment {type(alignment).__name__} does not say where it looks: give it a method "
            "implicit_rois(features, boxes, strides), as in aligncli/models/align.py"
        )
    name = ALIGNMENT_TITLES.get(type(alignment), type(alignment).__name__)
    size = getattr(alignment, "kernel_size", None)
    return name if size is None else f"{name} {size}×{size}"


def per_box(cells: Tensor, *, like: Tensor) -> Tensor:
    """One row a cell, (..., H * W, V), to one a box, (N, R, V), for the R = H * W * A boxes of `like` (N, R, 4)."""
    num_images, num_boxes = like.shape[:2]
    rows = cells.repeat_interleave(num_boxes // cells.shape[-2], dim=-2)
    return rows.expand(num_images, -1, -1)


def _features(model: Detector, images: Sequence[Tensor]) -> tuple[list[Tensor], Geometry]:
    pixels, sizes = model.batch_images(images)
    features = model.neck(model.backbone(pixels))
    return features, model.geometry(features, sizes)


def _locations(candidates: Candidates, geometry: Geometry, index: int, **parts: Any) -> Locations:
    """With what all of our detectors have in common."""
    return Locations(
        level=f"P{geometry.strides[index].bit_length() - 1}",
        final=_final_boxes(candidates, geometry),
        scores=candidates.logits.float().amax(dim=-1).sigmoid(),
        real=_real_locations(geometry, index, like=candidates.values),
        **parts,
    )


def _final_boxes(candidates: Candidates, geometry: Geometry) -> Tensor:
    return clip_boxes(candidates.decode(candidates.references, candidates.values.float()), geometry.sizes)


def _grid_of_rois(geometry: Geometry, index: int, kernel_size: int, *, like: Tensor) -> Tensor:
    """Equation 3 for every location of a level, (N, R, 4)."""
    height, width = geometry.shapes[index]
    rois = implicit_rois(height, width, kernel_size, geometry.strides[index], device=like.device)
    return per_box(rois.view(-1, 4), like=like)


def _are_cells(references: Tensor, geometry: Geometry, index: int) -> bool:
    """Whether a head's references are the cells themselves, as those of anchor-free heads are."""
    height, width = geometry.shapes[index]
    cells = implicit_rois(height, width, 1, geometry.strides[index], device=references.device).view(-1, 4)
    return references.shape == cells.shape and torch.allclose(references, cells)


def _real_locations(geometry: Geometry, index: int, *, like: Tensor) -> Tensor:
    cells = _grid_of_rois(geometry, index, 1, like=like)
    centers = 0.5 * (cells[..., :2] + cells[..., 2:])
    return (centers < geometry.sizes.flip(-1)[:, None]).all(dim=-1)
