"""A folder in COCO instance format, read once into flat arrays.

Policies. Labels follow the order of the category ids. Boxes refer to the EXIF-upright image. Training targets
are clipped to the image and leave out boxes without area; `ground_truth()` keeps every published number, mask
areas included, so that AP is the official one. Images without annotations stay: they are pure background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from aligncli.config import CocoConfig
from aligncli.data.coco_faults import find_faults, read_document
from aligncli.data.dataset import BoxTable, Categories, Sample, Split, Target
from aligncli.data.images import UnreadableImageError, is_file, missing_files, read_reduced, safe_image_path
from aligncli.data.stated_size import size_fault
from aligncli.errors import DataError

CocoSplit = Split | Literal["test"]
_MAX_UNREADABLE_RUN = 10  # images in a row; more is a broken disk or a wrong folder, not bad luck


class CocoDataset:
    """One split of a COCO folder, in the form of `DetectionDataset`.

    `test` is images alone, to detect on: its file need not have annotations, and those that it has are not read.
    With `config.min_decoded_side` large JPEG files may come reduced, boxes and the target's scale with them.
    With `config.unreadable="skip"`, training gets the next readable image for an unreadable one; the others never
    skip, because AP over other images cannot be compared. Raises DataError for everything that is wrong with
    the annotations at once, and for an image when it is asked for.
    """

    def __init__(self, config: CocoConfig, split: CocoSplit) -> None:
        self._annotation_path = annotation_path(config, split)
        self._image_folder = image_folder(config, split)
        document = _read_usable(self._annotation_path, annotated=split != "test")
        self.categories = Categories.from_coco(document["categories"])
        images = document["images"]
        self.sizes = np.array([(image["height"], image["width"]) for image in images], np.int64)
        self._image_ids = np.array([image["id"] for image in images], np.int64)
        self._file_names = tuple(image["file_name"] for image in images)
        records = [] if split == "test" else document["annotations"]
        self._boxes = _flatten(records, self._image_ids, self.categories)
        self._corners, self._usable = _training_boxes(self._boxes, self.sizes)
        self._min_side = config.min_decoded_side
        self._skips = config.unreadable == "skip" and split == "train"
        self._unreadable = torch.zeros(len(images), dtype=torch.bool).share_memory_()  # set by workers
        self._require_files()

    def __len__(self) -> int:
        return len(self._file_names)

    def __getitem__(self, index: int) -> Sample:
        """Image `index` and its target.

        Raises UnreadableImageError; DataError for a file name that leaves the folder, for a size that is not
        the annotated one, and for ten unreadable images in a row; IndexError outside 0..len-1.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        if not self._skips:
            return self._read(index)
        failures: list[UnreadableImageError] = []
        while len(failures) < _MAX_UNREADABLE_RUN:
            candidate = (index + len(failures)) % len(self)
            try:
                return self._read(candidate)
            except UnreadableImageError as error:
                self._unreadable[candidate] = True
                failures.append(error)
        raise DataError(f"{len(failures)} images in a row cannot be read, the last one: {failures[-1]}")

    @property
    def unreadable_files(self) -> list[str]:
        """File names that were skipped so far, in any worker process."""
        return [self._file_names[index] for index in torch.nonzero(self._unreadable).flatten().tolist()]

    @property
    def num_boxes_left_out(self) -> int:
        """Boxes without area inside their image, which no training target holds."""
        return int((~self._usable).sum())

    def notes(self) -> list[str]:
        """How many boxes and images training does without, and which image was the first."""
        notes = []
        if self.num_boxes_left_out:
            notes.append(f"{self._annotation_path}: {self.num_boxes_left_out} boxes without area are not learned")
        if files := self.unreadable_files:
            notes.append(f"{self._annotation_path}: {len(files)} unreadable images were skipped, first {files[0]!r}")
        return notes

    def ground_truth(self) -> dict[str, Any]:
        """The split as a COCO dict with the published boxes and areas; annotation ids are re-indexed 1..B."""
        image_ids = self._image_ids.tolist()
        records = zip(image_ids, self._file_names, self.sizes.tolist())
        return {
            "images": [
                {"id": image_id, "file_name": name, "width": width, "height": height}
                for image_id, name, (height, width) in records
            ],
            "annotations": self._boxes.to_coco(image_ids, self.categories),
            "categories": self.categories.to_coco(),
        }

    def _require_files(self) -> None:
        """Raises DataError where images are missing: now, and not after hours of training."""
        missing = missing_files(self._image_folder, self._file_names)
        if not missing or (self._skips and len(missing) < len(self)):
            return
        of_all = f"of the {len(self):,} images of {self._annotation_path}"
        if len(missing) == len(self):
            raise DataError(f"none {of_all} is in {self._image_folder}; the first is {missing[0]!r}")
        raise DataError(
            f"{len(missing):,} {of_all} {'is' if len(missing) == 1 else 'are'} not in {self._image_folder}; the first "
            f"is {missing[0]!r}: bring them there, or leave them out with `aligncli data check --fix`"
        )

    def _read(self, index: int) -> Sample:
        name = self._file_names[index]
        image, facts = read_reduced(safe_image_path(self._image_folder, name), min_side=self._min_side)
        height, width = (int(side) for side in self.sizes[index])
        if (facts.height, facts.width) != (height, width):
            raise DataError(size_fault(name, found=(facts.height, facts.width), stated=(height, width)))
        rows = self._boxes.rows(index)
        usable = self._usable[rows]
        target = Target(
            boxes=torch.from_numpy(self._corners[rows][usable]) * facts.scale,
            labels=torch.from_numpy(self._boxes.labels[rows][usable]),
            crowd=torch.from_numpy(self._boxes.crowd[rows][usable]),
            image_id=int(self._image_ids[index]),
            size=(height, width),
            scale=(facts.scale, facts.scale),
        )
        return image, target


def data_root(config: CocoConfig) -> Path:
    """The folder itself. Raises DataError if it is not there."""
    root = Path(config.root)
    if not root.is_dir():
        what = "is a file: expected a folder with images and annotations" if root.exists() else "does not exist"
        raise DataError(f"data folder {root} {what}")
    return root


def annotation_path(config: CocoConfig, split: CocoSplit) -> Path:
    """The annotation file of a split. Raises DataError if it is not there."""
    root = data_root(config)
    names = {"train": config.train_annotations, "val": config.val_annotations, "test": config.test_annotations}
    if not is_file(root / names[split]):
        expected = f"images/, {CocoConfig(root='').train_annotations} and {CocoConfig(root='').val_annotations}"
        if split == "test":
            expected = "the images to detect on, as COCO's test2017/, and that list of them"
        raise DataError(
            f"data folder {root} lacks {names[split]}; it must hold {expected}, "
            f"or the recipe must set data.{split}_annotations"
        )
    return root / names[split]


def image_folder(config: CocoConfig, split: CocoSplit) -> Path:
    """The image folder of a split. Raises DataError if it is not there."""
    folder = Path(config.root) / config.images.replace("{split}", split)
    if not folder.is_dir():
        raise DataError(f"image folder {folder} does not exist; the recipe's data.images names it")
    return folder


def require_folders(config: CocoConfig) -> None:
    """Look for what training and validation read, and read nothing. Raises DataError."""
    for split in ("train", "val"):
        annotation_path(config, split)
        image_folder(config, split)


def _read_usable(path: Path, *, annotated: bool) -> dict[str, Any]:
    document = read_document(path)
    for fault in find_faults(document, annotated=annotated):
        if fault.fatal:
            hint = "; `aligncli data check` lists all faults of a data folder" if annotated else ""
            raise DataError(f"{path}: {fault}{hint}")
    return document


def _flatten(records: list[dict[str, Any]], image_ids: np.ndarray, categories: Categories) -> BoxTable:
    """Columns of the annotations, sorted by image, in file order within an image."""
    row_of = {image_id: row for row, image_id in enumerate(image_ids.tolist())}
    label_of = {coco_id: label for label, coco_id in enumerate(categories.coco_ids)}
    owners = np.array([row_of[record["image_id"]] for record in records], np.int64)
    order = np.argsort(owners, kind="stable")
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)[order]
    areas = [record.get("area", record["bbox"][2] * record["bbox"][3]) for record in records]
    return BoxTable(
        offsets=np.searchsorted(owners[order], np.arange(len(image_ids) + 1)),
        boxes=boxes,
        labels=np.array([label_of[record["category_id"]] for record in records], np.int64)[order],
        crowd=np.array([record.get("iscrowd", 0) for record in records], bool)[order],
        areas=np.array(areas, np.float64)[order],
    )


def _training_boxes(table: BoxTable, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as xyxy float32 (B, 4), clipped to their images, and which of them keep an area (B,)."""
    height, width = np.repeat(sizes, np.diff(table.offsets), axis=0).T
    limits = np.stack([width, height, width, height], axis=1)
    corners = np.concatenate([table.boxes[:, :2], table.boxes[:, :2] + table.boxes[:, 2:]], axis=1)
    corners = np.clip(corners, 0, limits).astype(np.float32)
    return corners, np.all(corners[:, 2:] > corners[:, :2], axis=1)
