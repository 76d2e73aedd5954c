"""What every data set looks like to the rest of the product: categories, targets, the protocol.

Boxes are xyxy float pixels, half-open. Labels are contiguous 0..K-1; COCO's category ids, which have gaps,
exist only in `Categories` and in what `ground_truth()` returns.
Legend: n images of the data set, G ground truths of one image, B boxes of the whole data set.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict

import numpy as np
from torch import Tensor

from aligncli.errors import DataError

Split = Literal["train", "val"]


class Target(TypedDict):
    """One image's ground truth. Crowd regions are among the boxes, flagged: they are never positives."""

    boxes: Tensor  # (G, 4) float32 xyxy, pixels of the image that goes with it
    labels: Tensor  # (G,) int64, 0..K-1
    crowd: Tensor  # (G,) bool
    image_id: int  # COCO id
    size: tuple[int, int]  # original height, width, EXIF-upright
    scale: tuple[float, float]  # x, y: network input pixels per original pixel


Sample = tuple[Tensor, Target]  # image uint8 (3, H, W) and its target


@dataclass(frozen=True)
class Categories:
    """Class names and COCO ids, both indexed by label."""

    names: tuple[str, ...]
    coco_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.coco_ids) == len(set(self.coco_ids))

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_coco(cls, records: Sequence[Mapping[str, Any]]) -> Categories:
        """From the "categories" list of an annotation file: labels follow the order of the ids."""
        ordered = sorted(records, key=lambda record: record["id"])
        return cls(tuple(record["name"] for record in ordered), tuple(record["id"] for record in ordered))

    def to_coco(self) -> list[dict[str, Any]]:
        """The "categories" list of an annotation file."""
        return [{"id": coco_id, "name": name} for coco_id, name in zip(self.coco_ids, self.names)]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a run folder's categories.json; `from_json` reads it back."""
        return {"names": list(self.names), "coco_ids": list(self.coco_ids)}

    @classmethod
    def from_json(cls, values: object) -> Categories:
        """Inverse of `to_json`. Raises DataError if the values do not describe categories."""
        match values:
            case {"names": [*names], "coco_ids": [*ids]} if (
                all(isinstance(name, str) for name in names)
                and all(type(coco_id) is int for coco_id in ids)
                and len(names) == len(ids) == len(set(ids))
            ):
                return cls(tuple(names), tuple(ids))
        raise DataError("categories: expected as many 'names' (strings) as 'coco_ids' (distinct integers)")


class DetectionDataset(Protocol):
    """Random access to images with targets, untransformed: scale 1, 1 unless it was decoded at another size.

    Must be picklable for workers.
    """

    categories: Categories
    sizes: np.ndarray  # (n, 2) int64: height, width, EXIF-upright

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def ground_truth(self) -> dict[str, Any]:
        """COCO dict of "images", "annotations", "categories"; annotation ids are re-indexed 1..B.

        The ids matter: pycocotools takes a detection matched to annotation id 0 for unmatched.
        """
        ...

    def notes(self) -> list[str]:
        """What was left out so far and a user should know, one line each."""
        ...


@dataclass(frozen=True)
class BoxTable:
    """All boxes of a data set in flat arrays, image after image: cheap to share with worker processes."""

    offsets: np.ndarray  # (n + 1,) int64: image i owns rows offsets[i]:offsets[i + 1]
    boxes: np.ndarray  # (B, 4) float64 xywh as in COCO files, pixels of the upright image
    labels: np.ndarray  # (B,) int64
    crowd: np.ndarray  # (B,) bool
    areas: np.ndarray  # (B,) float64: what evaluation sorts into small, medium and large

    def rows(self, index: int) -> slice:
        """The rows of image `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def to_coco(self, image_ids: Sequence[int], categories: Categories) -> list[dict[str, Any]]:
        """The "annotations" list of a COCO file, ids re-indexed 1..B."""
        owners = np.repeat(np.asarray(image_ids, dtype=np.int64), np.diff(self.offsets)).tolist()
        columns = zip(owners, self.boxes.tolist(), self.labels.tolist(), self.crowd.tolist(), self.areas.tolist())
        return [
            {
                "id": row,
                "image_id": image_id,
                "category_id": categories.coco_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for row, (image_id, box, label, crowd, area) in enumerate(columns, start=1)
        ]


def fingerprint(dataset: DetectionDataset) -> str:
    """`118287 images (8f3a01c2)`: what the order of training images depends on, their number and sizes."""
    return f"{len(dataset)} images ({zlib.crc32(np.ascontiguousarray(dataset.sizes, np.int64).tobytes()):08x})"


def require_same_categories(expected: Categories, found: Categories, *, source: str) -> None:
    """Raise DataError, naming the first difference, unless labels mean the same in both.

    `source` names where `found` comes from, for the message.
    """
    if expected == found:
        return
    if len(expected) != len(found):
        raise DataError(f"{source}: {len(found)} categories, but {len(expected)} were expected")
    pairs = list(zip(zip(expected.coco_ids, expected.names), zip(found.coco_ids, found.names)))
    (old_id, old_name), (new_id, new_name) = next(pair for pair in pairs if pair[0] != pair[1])
    raise DataError(
        f"{source}: category id {new_id} {new_name!r} stands where id {old_id} {old_name!r} was expected; "
        "the files must share one category list"
    )
