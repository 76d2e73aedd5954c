"""`shapes`: a procedural detection set that needs no download. Every image is a function of (seed, index).

Six classes that fill their box exactly lie on noise among unlabelled clutter. Boxes are amodal: a shape that
is partly painted over keeps its whole box. Sizes and shapes are log-uniform, so that, as on COCO, anchors
rarely fit and refined anchors differ much from the implicit RoI: the paper's misalignment shows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from aligncli.config import ShapesConfig
from aligncli.data.dataset import BoxTable, Categories, Sample, Split, Target
from aligncli.data.painting import SHAPES, Box, paint_image
from aligncli.data.random_stream import RandomStream
from aligncli.errors import RecipeError

_MAX_ASPECT = 4.0  # width / height is log-uniform in 1/4..4
_MAX_OBJECTS = 6
_MAX_IOU = 0.3
_MAX_COVERED = 0.6  # of an object, by all later ones together
_ATTEMPTS = 40  # to place one object; then the image stays with fewer
_CACHE_BYTES = 512 * 2**20


class ShapesDataset:
    """The `train` or `val` split of the procedural set, in the form of `DetectionDataset`.

    Images are painted when first asked for and kept while the split fits into 512 MiB. COCO image ids are
    index + 1; areas are box areas (w * h), not mask areas. Raises RecipeError for sizes that cannot be.
    """

    def __init__(self, config: ShapesConfig, split: Split) -> None:
        _check(config)
        self.categories = Categories(SHAPES, tuple(range(1, len(SHAPES) + 1)))
        self._config = config
        self._split = split
        self._seed, length = {
            "train": (config.train_seed, config.num_train),
            "val": (config.val_seed, config.num_val),
        }[split]
        self.sizes = np.full((length, 2), config.image_size, np.int64)
        self._cache: dict[int, torch.Tensor] = {}
        self._caches = length * 3 * config.image_size**2 <= _CACHE_BYTES

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        """Image `index` and its target. Raises IndexError outside 0..len-1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        stream, objects = self._place(index)
        image = self._cache.get(index)
        if image is None:
            image = torch.from_numpy(paint_image(stream, self._config.image_size, objects))
            if self._caches:
                self._cache[index] = image
        target = Target(
            boxes=torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([label for label, _ in objects], dtype=torch.int64),
            crowd=torch.zeros(len(objects), dtype=torch.bool),
            image_id=index + 1,
            size=(self._config.image_size, self._config.image_size),
            scale=(1.0, 1.0),
        )
        # A copy: handing a tensor to another process moves it into shared memory, one open file each
        return image.clone(), target

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes start with an empty cache instead of a copy of 200 MB."""
        return self.__dict__ | {"_cache": {}}

    def notes(self) -> list[str]:
        """Nothing is ever left out."""
        return []

    def ground_truth(self) -> dict[str, Any]:
        """The split as a COCO dict; no image is painted for it."""
        placed = [self._place(index)[1] for index in range(len(self))]
        corners = np.array([box for objects in placed for _, box in objects])
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        table = BoxTable(
            offsets=np.cumsum([0, *map(len, placed)]),
            boxes=boxes,
            labels=np.array([label for objects in placed for label, _ in objects]),
            crowd=np.zeros(len(boxes), bool),
            areas=boxes[:, 2] * boxes[:, 3],
        )
        image_ids = range(1, len(self) + 1)
        size = self._config.image_size
        return {
            "images": [
                {"id": image_id, "file_name": f"{self._split}_{image_id}.png", "width": size, "height": size}
                for image_id in image_ids
            ],
            "annotations": table.to_coco(image_ids, self.categories),
            "categories": self.categories.to_coco(),
        }

    def _place(self, index: int) -> tuple[RandomStream, list[tuple[int, Box]]]:
        """The objects of an image, and the stream to paint it with."""
        stream = RandomStream(self._seed, index)
        return stream, _place_objects(stream, self._config)


def _check(config: ShapesConfig) -> None:
    if not config.min_size <= config.max_size:
        raise RecipeError(f"recipe key 'data.min_size': {config.min_size:g} exceeds data.max_size {config.max_size:g}")
    if not 4 <= config.min_size <= config.image_size:
        raise RecipeError(
            f"recipe key 'data.min_size': {config.min_size:g} must be from 4 to data.image_size "
            f"{config.image_size}, or no shape can be drawn"
        )
    if config.train_seed == config.val_seed:
        raise RecipeError(
            f"recipe key 'data.val_seed': {config.val_seed} is also data.train_seed; with one seed "
            "validation would be on training images"
        )


def _place_objects(stream: RandomStream, config: ShapesConfig) -> list[tuple[int, Box]]:
    """One to six (label, box), boxes inside the image on a grid of 1/64 pixel."""
    objects: list[tuple[int, Box]] = []
    room: list[float] = []  # area of each object that may still be painted over
    for _ in range(1 + stream.below(_MAX_OBJECTS)):
        label = stream.below(len(SHAPES))
        for _ in range(_ATTEMPTS):
            box = _draw_box(stream, config)
            if box is not None and _fits(box, objects, room):
                objects.append((label, box))
                room.append(_MAX_COVERED * _area(box))
                break
    if not objects:  # only where min_size is close to the image's, so that hardly any aspect fits
        label = stream.below(len(SHAPES))
        margin = (config.image_size - config.min_size) / 2
        objects.append((label, (margin, margin, config.image_size - margin, config.image_size - margin)))
    return objects


def _draw_box(stream: RandomStream, config: ShapesConfig) -> Box | None:
    """A box somewhere in the image, or None if the drawn size and aspect do not fit into it."""
    limit = float(config.image_size)
    size = stream.log_uniform(config.min_size, config.max_size)
    max_aspect = min(_MAX_ASPECT, max(1.0, (limit / size) ** 2)) if config.fit_large else _MAX_ASPECT
    aspect = stream.log_uniform(1 / max_aspect, max_aspect)
    width, height = round(size * math.sqrt(aspect) * 64) / 64, round(size / math.sqrt(aspect) * 64) / 64
    across, down = stream.unit(), stream.unit()
    if width > limit or height > limit:
        return None
    x1, y1 = round(across * (limit - width) * 64) / 64, round(down * (limit - height) * 64) / 64
    return x1, y1, x1 + width, y1 + height


def _fits(box: Box, objects: list[tuple[int, Box]], room: list[float]) -> bool:
    """Whether `box` may lie over the earlier objects. If so, takes what it covers off their room."""
    shared = [_intersection(box, earlier) for _, earlier in objects]
    for (_, earlier), covered, left in zip(objects, shared, room):
        union = _area(box) + _area(earlier) - covered
        if covered > _MAX_IOU * union or covered > left:
            return False
    room[:] = [left - covered for left, covered in zip(room, shared)]
    return True


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _intersection(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
