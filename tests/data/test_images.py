import io
import os
import struct
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aligncli.data.images import (
    ImageFacts,
    UnreadableImageError,
    file_name_fault,
    inspect_image,
    read_image,
    read_reduced,
    safe_image_path,
)
from aligncli.errors import DataError
from tests.data.png_files import COLOUR, chunk, png

ORIENTATION = 0x0112


def gradient(height=6, width=9):
    """RGB with every pixel different."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 20, columns * 20, rows + columns], axis=2).astype(np.uint8)


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("extension", ["png", "bmp", "webp"])
def test_pixels_of_lossless_formats_arrive_exactly(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(gradient()).save(path, lossless=True)
    image = read_image(path)
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 6, 9))
    np.testing.assert_array_equal(image.permute(1, 2, 0), gradient())


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, gradient()),
        (2, gradient()[:, ::-1]),
        (3, gradient()[::-1, ::-1]),
        (4, gradient()[::-1]),
        (5, gradient().transpose(1, 0, 2)),
        (6, np.rot90(gradient(), -1)),
        (7, gradient()[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(gradient(), 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(image, upright)


def test_grey_is_repeated_in_the_three_channels(tmp_path):
    grey = gradient()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    for channel in read_image(tmp_path / "a.png"):
        np.testing.assert_array_equal(channel, grey)


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    deep = (np.arange(54).reshape(6, 9) * 1200).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], deep >> 8)


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.arange(54).reshape(6, 9) % 2 == 0
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[1], bits * 255)


def test_transparency_is_composited_over_black(tmp_path):
    rgba = np.full((2, 2, 4), 200, np.uint8)
    rgba[..., 3] = [[255, 0], [128, 255]]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image[0], [[200, 0], [100, 200]])


def test_a_transparent_palette_entry_is_black(tmp_path):
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
    palette.putpalette([250, 10, 20, 30, 240, 50])
    palette.save(tmp_path / "a.png", transparency=1)
    image = read_image(tmp_path / "a.png").permute(1, 2, 0)
    np.testing.assert_array_equal(image[0], [[250, 10, 20], [0, 0, 0]])


def test_a_transparent_colour_of_an_rgb_image_is_black(tmp_path):
    pixels = np.array([[[1, 2, 3], [9, 8, 7]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(9, 8, 7))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0), [[[1, 2, 3], [0, 0, 0]]])


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, 8:, 0] = 255  # cyan on the right half, paper on the left
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg").to(torch.int64)
    assert (image[:, 8, 2] > 245).all()
    assert image[0, 8, 13] < 10
    assert (image[1:, 8, 13] > 245).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(tmp_path / "a.webp")[:, 0, 0].tolist() == [255, 0, 0]


def test_facts_are_the_upright_size_and_nothing_for_an_ordinary_image(tmp_path):
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp"):
        Image.fromarray(gradient(6, 16)).save(tmp_path / name)
        assert inspect_image(tmp_path / name) == ImageFacts(height=6, width=16)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(gradient(6, 16)).save(tmp_path / "b.jpg", exif=exif)
    facts = inspect_image(tmp_path / "b.jpg")
    assert (facts.height, facts.width) == (16, 6)
    assert facts.oddities == ("is turned upright as its EXIF header says",)


def test_sixteen_bits_of_colour_are_told(tmp_path):
    """Pillow's mode is RGB for these too."""
    (tmp_path / "a.png").write_bytes(png(5, 4, bits=16, colour=COLOUR, row=b"\x12\x34" * 15))
    assert inspect_image(tmp_path / "a.png").oddities == ("has 16 bits a channel, of which the high 8 are read",)
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [0x12, 0x12, 0x12]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"image .*gone\.png: no such file"):
        read_image(tmp_path / "gone.png")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="no such file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_something_else_is_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"a\.png"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("extension", ["gif", "tiff", "ppm", "ico"])
def test_other_formats_are_refused_whatever_their_name(tmp_path, extension):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(gradient(32, 32)), format=extension.upper()))
    with pytest.raises(UnreadableImageError, match="not a JPEG, PNG, WEBP, BMP file"):
        read_image(path)


@pytest.mark.parametrize("extension", ["png", "jpeg", "webp", "bmp"])
def test_a_truncated_file_is_unreadable(tmp_path, extension):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format=extension.upper())
    path = tmp_path / "a.img"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImageError, match=r"image .*a\.img cannot be decoded"):
        read_image(path)


def png_of_stated_size(width, height):
    """A valid PNG header for any size, with the pixels of another, tiny image behind it."""
    content = encoded(Image.fromarray(gradient()), format="PNG")
    return content[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + content[24:29]) + content[33:]


@pytest.mark.parametrize("side", [9_000, 12_000, 50_000])  # ours to refuse, Pillow warns, Pillow refuses
def test_the_pixel_budget_is_checked_before_decoding(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_stated_size(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImageError, match=r"image .*bomb\.png: .*pixels") as caught:
            read_image(path)
    assert "decoded" not in str(caught.value)


def test_the_pixel_budget_is_inclusive(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)
    assert read_image(path, max_pixels=54).shape == (3, 6, 9)
    with pytest.raises(UnreadableImageError, match="9 x 6 is over the budget of 53 pixels"):
        read_image(path, max_pixels=53)


SEEDS = [
    encoded(Image.fromarray(gradient(24, 24)), format=format_name) for format_name in ("PNG", "JPEG", "WEBP", "BMP")
]


@settings(max_examples=150, deadline=None)
@given(
    content=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_decode_or_are_an_unreadable_image(tmp_path_factory, content, edits):
    damaged = bytearray(content)
    for position, value in edits:
        damaged[position % len(damaged)] = value
    path = tmp_path_factory.mktemp("damaged") / "a.img"
    path.write_bytes(damaged)
    try:
        image = read_image(path, max_pixels=10_000)
    except UnreadableImageError:
        return
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3


@pytest.mark.parametrize("name", ["a.png", "train/a.png", "a b.png", "Ünï\xa0.jpg", "a..b.png", "...", "~/a.png"])
def test_names_inside_the_folder_are_allowed(tmp_path, name):
    assert safe_image_path(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a/",
        "/etc/passwd",
        "//server/a.png",
        "../a.png",
        "a/../../b.png",
        "a/..",
        "..\\a.png",
        "a\\b.png",
        "C:a.png",
        "c:/a.png",
        "a\0.png",
        "a\n.png",
        "\x1b[31m.png",
        "\ud800.png",
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    assert file_name_fault(name) is not None
    with pytest.raises(DataError, match="is refused"):
        safe_image_path(tmp_path, name)


@settings(max_examples=300, deadline=None)
@given(name=st.text(st.sampled_from("./\\\0:aC ~\n"), max_size=12))
def test_no_name_leads_out_of_the_folder(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "root"
    try:
        path = safe_image_path(root, name)
    except DataError:
        return
    assert os.path.normpath(path).startswith(f"{root}{os.sep}")


def test_links_out_of_the_folder_are_refused(tmp_path):
    root, outside = tmp_path / "images", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    Image.fromarray(gradient()).save(outside / "a.png")
    Image.fromarray(gradient()).save(root / "real.png")
    (root / "file.png").symlink_to(outside / "a.png")
    (root / "folder").symlink_to(outside)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "inside.png").symlink_to(root / "real.png")
    for name in ("file.png", "folder/a.png"):
        with pytest.raises(DataError, match="it is a link out of the image folder"):
            safe_image_path(root, name)
    assert read_image(safe_image_path(root, "inside.png")).shape == (3, 6, 9)
    with pytest.raises(DataError):
        read_image(safe_image_path(root, "loop.png"))


def test_the_image_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    Image.fromarray(gradient()).save(tmp_path / "disk" / "a.png")
    (tmp_path / "images").symlink_to(tmp_path / "disk")
    assert read_image(safe_image_path(tmp_path / "images", "a.png")).shape == (3, 6, 9)


@pytest.mark.parametrize("length", [300, 5000])
def test_a_name_too_long_for_the_file_system_is_a_missing_file(tmp_path, length):
    with pytest.raises(DataError, match="no such file"):
        read_image(safe_image_path(tmp_path, "a" * length))


def smooth(height, width):
    """RGB that varies slowly, so that every way to reduce it gives about the same."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(rows / 40), 127 + 100 * np.cos(columns / 50), (rows + columns) / 8]
    return np.stack(waves, axis=2).astype(np.uint8)


def reduced_and_whole(path, min_side, *, shape, orientation=1):
    """A smooth JPEG decoded as asked, the blocks of the whole that its pixels stand for, and its facts."""
    image = Image.fromarray(smooth(*shape))
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(path, quality=95, exif=exif)
    reduced, facts = read_reduced(path, min_side=min_side)
    whole = read_image(path)
    assert (facts.height, facts.width) == tuple(whole.shape[1:])
    times = round(1 / facts.scale)
    edge = [(-side) % times for side in whole.shape[1:]]
    reached = torch.nn.functional.pad(whole[None].float(), (0, edge[1], 0, edge[0]), mode="replicate")
    return reduced.float(), torch.nn.functional.avg_pool2d(reached, times)[0], facts


@pytest.mark.parametrize(
    ("min_side", "shape"),
    [(0, (403, 601)), (404, (403, 601)), (201, (202, 301)), (150, (202, 301)), (100, (101, 151)), (1, (51, 76))],
)
def test_a_jpeg_is_decoded_at_the_smallest_eighth_that_is_large_enough(tmp_path, min_side, shape):
    reduced, blocks, facts = reduced_and_whole(tmp_path / "a.jpg", min_side, shape=(403, 601))
    assert tuple(reduced.shape) == (3, *shape)
    assert shape == (-(-403 // (1 / facts.scale)), -(-601 // (1 / facts.scale)))
    assert (reduced - blocks).abs().mean() < 1  # grey levels


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("height", "divisor"), [(400, 8), (404, 4), (402, 2), (403, 1)])
def test_one_that_is_turned_is_divided_by_what_divides_its_sides(tmp_path, orientation, height, divisor):
    reduced, blocks, facts = reduced_and_whole(tmp_path / "a.jpg", 20, shape=(height, 600), orientation=orientation)
    assert facts.scale == 1 / divisor
    assert tuple(reduced.shape[1:]) == (facts.height // divisor, facts.width // divisor)
    assert (reduced - blocks).abs().mean() < 1


@pytest.mark.parametrize("extension", ["png", "webp", "bmp"])
def test_other_formats_are_never_reduced(tmp_path, extension):
    Image.fromarray(smooth(80, 120)).save(tmp_path / f"a.{extension}", lossless=True)
    image, facts = read_reduced(tmp_path / f"a.{extension}", min_side=10)
    assert facts == ImageFacts(80, 120)
    np.testing.assert_array_equal(image.permute(1, 2, 0), smooth(80, 120))
