"""Pascal VOC's boxes are those of the image that lies there."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from aligncli.data.voc import read_voc
from aligncli.errors import DataError
from tests.data.other_formats import OBJECT, voc_folder

SIZE = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"


def sized(root: Path, size: str) -> Path:
    """One image of 40 x 30 with a box, and what its XML file says of its size."""
    return voc_folder(root, {"x": [size, OBJECT.format(name="dog", difficult=0, box=(1, 1, 10, 20))]})


@pytest.mark.parametrize("size", ["", "<size/>", SIZE.format(40, 30), SIZE.format(0, 0), SIZE.format("", 30)])
def test_a_size_that_is_right_or_not_stated_is_no_fault(tmp_path, size):
    (image,) = read_voc(sized(tmp_path / "voc", size)).images
    assert len(image.read(40, 30)) == 1


@pytest.mark.parametrize("size", [(80, 60), (40, 31), (0, 31)])
def test_boxes_for_another_size_are_refused(tmp_path, size):
    (image,) = read_voc(sized(tmp_path / "voc", SIZE.format(*size))).images
    stated = f"{size[0] or 40} x {size[1]}"
    with pytest.raises(DataError, match=rf"x\.xml: image 'x.jpg' is 40 x 30, but its annotations say {stated} \("):
        image.read(40, 30)


def test_boxes_in_the_stored_frame_of_an_image_that_exif_turns_are_refused(tmp_path):
    root = sized(tmp_path / "voc", SIZE.format(40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / "x.jpg", exif=exif)
    (image,) = read_voc(root).images
    with pytest.raises(DataError, match=r"is 30 x 40, but its annotations say 40 x 30 .* as EXIF turns it upright"):
        image.read(30, 40)


def test_a_size_that_is_no_number_is_named(tmp_path):
    (image,) = read_voc(sized(tmp_path / "voc", SIZE.format("wide", 30))).images
    with pytest.raises(DataError, match="<size/width> is 'wide', expected a number of pixels"):
        image.read(40, 30)


def test_a_byte_order_mark_hides_no_image_of_a_split(tmp_path):
    root = voc_folder(tmp_path / "voc", {"x": [], "y": []})
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, name in (("train", "x"), ("val", "y")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(f"\ufeff{name}\n", encoding="utf-8")
    assert [(image.file_name, image.split) for image in read_voc(root).images] == [("x.jpg", "train"), ("y.jpg", "val")]
