"""The contenders of `aligncli bench data`: from files to resized uint8 images with their boxes, in batches.

    aligncli    ours, as `aligncli train` reads: data/loader.py
    plain       what one writes without a framework: PIL decodes, torchvision's functional resizes and flips the
                PIL image, torch's DataLoader makes batches
Both draw a batch at random; a pass sees every image once. Images differ a little, as PIL and torch round
differently in resizing: `pixel_difference` says by how much.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision.transforms.v2.functional as vision
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aligncli.analysis.bench.failures import WrongAnswerError
from aligncli.config import CocoConfig, InputConfig
from aligncli.data.coco import CocoDataset, annotation_path, image_folder
from aligncli.data.dataset import Sample
from aligncli.data.loader import eval_loader, train_loader
from aligncli.data.transforms import resized_size

OURS, PLAIN = "aligncli", "plain"
TOLERANCE = 2.0  # grey levels, mean over an image
COMPARED = 6  # images
PlainSample = tuple[Tensor, dict[str, Tensor]]  # uint8 (3, h, w); boxes (G, 4) xyxy, labels (G,)


@dataclass(frozen=True)
class LoaderCase:
    """What is read, the train split of `data`, and what is made of it. workers: processes that read; 0 is this one."""

    data: CocoConfig
    short_side: int = 800
    long_side: int = 1333
    batch: int = 2
    workers: int = 0

    @property
    def input(self) -> InputConfig:
        """The same for our loader."""
        return InputConfig(
            min_short_side=self.short_side,
            max_short_side=self.short_side,
            long_side=self.long_side,
            workers=self.workers,
            aspect_grouping=False,
        )


class OurPass:
    """A pass of our training loader over all images; a call returns how many there were."""

    def __init__(self, case: LoaderCase) -> None:
        self._case = case
        self.dataset = CocoDataset(case.data, "train")

    def __call__(self) -> int:
        batches = train_loader(
            self.dataset,
            self._case.input,
            batch_size=self._case.batch,
            seed=0,
            num_batches=len(self.dataset) // self._case.batch,
        )
        return _drain(batches)

    def first(self, count: int) -> list[Sample]:
        """In the order of the file, not flipped."""
        loader = eval_loader(self.dataset, replace(self._case, workers=0).input, batch_size=count)
        return list(zip(*next(iter(loader)), strict=True))


class PlainPass:
    """A pass of the plain loop; a call returns how many images there were."""

    def __init__(self, case: LoaderCase) -> None:
        self._case = case
        self._dataset = PlainDataset(case, flip_probability=0.5)

    def __call__(self) -> int:
        loader = DataLoader(
            self._dataset,
            batch_size=self._case.batch,
            shuffle=True,
            drop_last=True,
            num_workers=self._case.workers,
            collate_fn=_as_lists,
        )
        return _drain(loader)

    def first(self, count: int) -> list[PlainSample]:
        """In the order of the file, not flipped."""
        dataset = PlainDataset(self._case, flip_probability=0.0)
        return [dataset[index] for index in range(min(count, len(dataset)))]


class PlainDataset(Dataset):
    """An annotation file as Python objects, images by PIL."""

    def __init__(self, case: LoaderCase, *, flip_probability: float) -> None:
        document = json.loads(annotation_path(case.data, "train").read_text(encoding="utf-8"))
        self._folder = image_folder(case.data, "train")
        self._images: list[dict[str, Any]] = document["images"]
        self._annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self._images}
        for annotation in document["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)
        self._sides = {"short_side": case.short_side, "long_side": case.long_side}
        self._flip_probability = flip_probability

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> PlainSample:
        record = self._images[index]
        image: Any = ImageOps.exif_transpose(Image.open(self._folder / record["file_name"])).convert("RGB")
        boxes = torch.tensor([annotation["bbox"] for annotation in self._annotations[record["id"]]]).reshape(-1, 4)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        labels = torch.tensor([annotation["category_id"] for annotation in self._annotations[record["id"]]])
        height, width = resized_size(image.height, image.width, **self._sides)
        boxes = boxes * torch.tensor([width / image.width, height / image.height]).repeat(2)
        resized = vision.resize(image, [height, width])
        if torch.rand(()) < self._flip_probability:
            resized = vision.horizontal_flip(resized)
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return vision.pil_to_tensor(resized), {"boxes": boxes, "labels": labels}


def pixel_difference(ours: OurPass, plain: PlainPass) -> float:
    """Grey levels, mean over an image, of the worst of the first few. Raises WrongAnswerError where it is too much."""
    pairs = zip(ours.first(COMPARED), plain.first(COMPARED), strict=True)
    worst = 0.0
    for number, ((image, _), (other, _)) in enumerate(pairs, start=1):
        if image.shape != other.shape:
            shapes = f"{tuple(image.shape)}, not {tuple(other.shape)} as the plain loop's"
            raise WrongAnswerError(f"image {number} is {shapes}")
        worst = max(worst, float((image.float() - other.float()).abs().mean()))
    if worst > TOLERANCE:
        raise WrongAnswerError(f"pixels differ from the plain loop's by {worst:.1f} grey levels, allowed: {TOLERANCE}")
    return worst


def _drain(batches: Iterable[tuple[list[Tensor], Any]]) -> int:
    return sum(len(images) for images, _ in batches)


def _as_lists(samples: list[PlainSample]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    return [image for image, _ in samples], [target for _, target in samples]
