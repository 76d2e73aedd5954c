"""Photographs that nobody has taken: JPEG files with COCO annotations, to measure loaders on.

Noise whose amplitude falls with the frequency, as that of natural images does (Field 1987), so that a file has
about as many bytes a pixel as COCO's, .5, and decoding takes about as long. Every third image is upright.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 87  # of the JPEG files, with which they get COCO's bytes a pixel
CONTRAST = 55.0  # standard deviation, in grey levels
COLOUR = 0.25  # of the contrast, what a channel has for itself
NUM_BOXES = 7  # an image; COCO's mean is 7.3
NUM_CLASSES = 80


def make_photos(root: Path, *, count: int, size: tuple[int, int]) -> Path:
    """A COCO folder with `count` JPEG files of `size` (height, width) pixels as its train split; `root`."""
    images, annotations = root / "images", root / "annotations"
    images.mkdir(parents=True)
    annotations.mkdir()
    records, boxes = [], []
    for number in range(1, count + 1):
        generator = np.random.default_rng(number)
        height, width = size if number % 3 else size[::-1]
        name = f"{number:06d}.jpg"
        Image.fromarray(paint_photo(height, width, generator)).save(images / name, quality=QUALITY)
        records.append({"id": number, "file_name": name, "width": width, "height": height})
        boxes += [_annotation(number, height, width, generator) for _ in range(NUM_BOXES)]
    document = {
        "images": records,
        "annotations": [{"id": row, **box} for row, box in enumerate(boxes, start=1)],
        "categories": [{"id": label, "name": f"class {label}"} for label in range(1, NUM_CLASSES + 1)],
    }
    (annotations / "instances_train.json").write_text(json.dumps(document), encoding="utf-8")
    return root


def paint_photo(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """uint8 (height, width, 3)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    amplitude = 1 / np.maximum(frequency, 1.0)
    shared, *channels = (_noise(height, width, amplitude, generator) for _ in range(4))
    picture = 128 + CONTRAST * (shared[..., None] + COLOUR * np.stack(channels, axis=-1))
    return picture.clip(0, 255).astype(np.uint8)


def _noise(height: int, width: int, amplitude: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Deviation 1; float32 (height, width)."""
    spectrum = np.fft.rfft2(generator.standard_normal((height, width), dtype=np.float32)) * amplitude
    noise = np.fft.irfft2(spectrum, s=(height, width)).astype(np.float32)
    return (noise - noise.mean()) / noise.std()


def _annotation(image_id: int, height: int, width: int, generator: np.random.Generator) -> dict[str, object]:
    corner, side = generator.uniform(0, 0.5, 2), generator.uniform(0.05, 0.5, 2)
    box = [float(value) for value in (*(corner * (width, height)), *(side * (width, height)))]
    return {
        "image_id": image_id,
        "category_id": int(generator.integers(1, NUM_CLASSES + 1)),
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
    }
