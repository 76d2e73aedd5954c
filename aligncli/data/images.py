"""Reading one image file that may be damaged, hostile or merely unusual.

Always uint8 RGB, upright. Grey is repeated, palettes are resolved, transparency is composited over black,
CMYK is converted without a colour profile, 16 bits a channel keep their high byte, animations give their
first frame. Sizes are checked against a budget of pixels before anything is decoded.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from aligncli.errors import DataError

MAX_PIXELS = 2**26  # 67 million, 201 MB decoded; a 45-megapixel photograph passes
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_ORIENTATION, _TURNED, _ON_THE_SIDE = 0x0112, range(2, 9), range(5, 9)  # EXIF's key; values that are not upright
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# What Pillow's decoders are known to raise on damaged bytes
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error),
)


class UnreadableImageError(DataError):
    """An image file is missing, damaged, too large or of a format that is not allowed."""


@dataclass(frozen=True)
class ImageFacts:
    """What a file that can be used is: its EXIF-upright size, and what is unusual about it, in words."""

    height: int
    width: int
    oddities: tuple[str, ...] = ()
    scale: float = 1.0  # pixels that were decoded per pixel of the file


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a file to uint8 (3, H, W), RGB, EXIF-upright. Raises UnreadableImageError.

    The tensor is a view with channels last in memory, the layout that torchvision resizes 6x faster.
    """
    return image_tensor(open_image(path, max_pixels=max_pixels))


def read_reduced(path: Path, *, min_side: int) -> tuple[Tensor, ImageFacts]:
    """As `read_image`, with what the file is; a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size: `facts.scale`.

    At the smallest of these whose short side is `min_side` or more, 0 for all of it. What is left out is never
    computed, but pixels are not quite those of a resized whole image, and the last row and column may reach over the
    image's edge: sizes are rounded up. Raises UnreadableImageError.
    """
    image, facts = _decode(path, MAX_PIXELS, min_side)
    return image_tensor(image), facts


def open_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file to a PIL image, mode RGB, EXIF-upright. Raises UnreadableImageError."""
    return _decode(path, max_pixels)[0]


def inspect_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode a file as training does, for what there is to know of it. Raises UnreadableImageError."""
    return _decode(path, max_pixels)[1]


def _decode(path: Path, max_pixels: int, min_side: int = 0) -> tuple[Image.Image, ImageFacts]:
    try:
        with _open_header(path, max_pixels) as image:
            oddities = tuple(_oddities(image))
            (width, height), scale = image.size, 1.0
            if min_side and image.format == "JPEG":
                divisor = _divisor(image, min_side)
                image.draft(None, (width // divisor, height // divisor))
                scale = 1 / divisor
            if image.getexif().get(_ORIENTATION) in _ON_THE_SIDE:
                width, height = height, width
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image), ImageFacts(height, width, oddities, scale)
    except UnreadableImageError:
        raise
    except _DECODER_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImageError(f"image {path} cannot be decoded: {reason}") from error


def _divisor(image: Image.Image, min_side: int) -> int:
    """What to divide a JPEG image's size by.

    A side that it does not divide ends in a pixel that is partly beyond the edge. Where turning the image upright
    would bring that to the beginning, and move everything by part of a pixel, only what divides both sides will do.
    """
    turned = image.getexif().get(_ORIENTATION) in _TURNED
    fitting = (
        divisor
        for divisor in (8, 4, 2)
        if min(image.size) // divisor >= min_side and not (turned and any(side % divisor for side in image.size))
    )
    return next(fitting, 1)


def image_tensor(image: Image.Image) -> Tensor:
    """A PIL image of mode RGB as uint8 (3, H, W), channels last in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def is_file(path: Path) -> bool:
    """Whether a regular file can be reached there; never raises, unlike `Path.is_file` before Python 3.14."""
    try:
        return path.is_file()
    except OSError:  # no permission, name too long
        return False


def missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of `names` that are no files below `folder`, in their order.

    Folders are listed once: asking for a hundred thousand names one by one takes minutes on a network drive.
    """
    places = [name.rpartition("/") for name in names]
    listed = {head: _listed_files(folder / head) for head in {head for head, _, _ in places}}
    unseen = (name for name, (head, _, last) in zip(names, places, strict=True) if last not in listed[head])
    return [name for name in unseen if not is_file(folder / name)]  # some file systems know a name in other spellings


def _listed_files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def has_control_characters(text: str) -> bool:
    """Whether text holds NUL, newlines, terminal escapes or lone surrogates."""
    return _CONTROL_CHARACTERS.search(text) is not None


def safe_image_path(root: Path, file_name: str) -> Path:
    """The path of `file_name` under `root`. `root` itself may be a link: it is the user's own choice.

    Raises DataError for names that leave it: absolute ones, "..", drive letters, backslashes, control
    characters, links to the outside.
    """
    fault = file_name_fault(file_name)
    if fault is None:
        path = root / file_name
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            return path
        fault = "it is a link out of the image folder"
    raise DataError(f"image file name {file_name!r} is refused: {fault}")


def file_name_fault(file_name: str) -> str | None:
    """Why a name must not be used as a path below the image folder; None if it may. Touches no files."""
    parts = file_name.split("/")
    if has_control_characters(file_name):
        return "it holds control characters"
    if "\\" in file_name or re.match("[A-Za-z]:", file_name):
        return "backslashes and drive letters are not allowed, use '/' between folders"
    if ".." in parts or file_name.startswith("/"):
        return "it must stay inside the image folder"
    if parts[-1] in ("", "."):
        return "it names no file"
    return None


def _open_header(path: Path, max_pixels: int) -> Image.Image:
    """Parse the header, which tells the size, and refuse what is over budget."""
    if not is_file(path):  # a folder, a pipe (opening it would wait for ever) or nothing
        raise UnreadableImageError(f"image {path}: no such file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our budget is stricter
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise UnreadableImageError(f"image {path}: {error}") from error
        except Image.UnidentifiedImageError as error:
            raise UnreadableImageError(f"image {path}: not a {', '.join(FORMATS)} file") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise UnreadableImageError(
            f"image {path}: {image.width} x {image.height} is over the budget of {max_pixels} pixels"
        )
    return image


def _oddities(image: Image.Image) -> Iterator[str]:
    """What reading changes or leaves out of an image, before it is decoded."""
    if image.mode == "CMYK":
        yield "is CMYK and read without its colour profile"
    if isinstance(image, PngImageFile) and any(";16" in str(tile.args) for tile in image.tile):
        yield "has 16 bits a channel, of which the high 8 are read"
    if getattr(image, "is_animated", False):
        yield "holds several pictures, of which the first is read"
    if image.size == (1, 1):
        yield "is 1 x 1 pixel"
    if image.getexif().get(_ORIENTATION) in _TURNED:
        yield "is turned upright as its EXIF header says"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # The colours under transparent pixels are whatever an editor left there
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")
    return image.convert("RGB")
