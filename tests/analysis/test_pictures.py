import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aligncli.analysis.pictures import class_colours, contact_sheet, draw_boxes

GREY, RED, BLUE = (128, 128, 128), (255, 0, 0), (0, 0, 255)


def pixels_of(picture, colour):
    """(n, 2) x, y of the pixels that have exactly that colour."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    return np.stack([columns, rows], axis=1)


def test_a_box_is_drawn_on_its_edges_in_its_colour():
    picture = draw_boxes(Image.new("RGB", (640, 480), GREY), [[100, 150, 300, 350]], ["fish"], colours=[RED])
    red = {tuple(point) for point in pixels_of(picture, RED).tolist()}
    assert {(100, 250), (300, 250), (200, 350), (250, 150)} <= red
    assert picture.getpixel((200, 300)) == GREY  # the inside is left as it is


def test_the_image_passed_in_is_not_drawn_on():
    image = Image.new("L", (640, 480), 7)
    picture = draw_boxes(image, [[100, 150, 300, 350]], ["fish"])
    assert picture.mode == "RGB"
    assert image.getextrema() == (7, 7)


@pytest.mark.parametrize(("side", "drawn"), [(128, 512), (64, 512), (300, 600), (640, 640), (1500, 1500)])
def test_small_images_are_enlarged_by_whole_factors(side, drawn):
    assert draw_boxes(Image.new("RGB", (side, side // 2)), [], []).size == (drawn, drawn // 2)


def test_boxes_grow_with_an_enlarged_image():
    picture = draw_boxes(Image.new("RGB", (128, 128), GREY), [[32, 48, 96, 112]], ["ring"], colours=[RED])
    red = pixels_of(picture, RED)
    assert np.abs(red.max(axis=0) - (96 * 4, 112 * 4)).max() <= 2


@pytest.mark.parametrize("box", [[0, 0, 640, 480], [600, 2, 640, 20], [0, 470, 30, 480], [250, 0, 252, 3]])
def test_tags_stay_inside_the_picture(box):
    image = Image.new("RGB", (640, 480), GREY)
    inner = draw_boxes(image, [[200, 200, 400, 300]], ["jellyfish"], colours=[RED])
    frame_only = draw_boxes(image, [box], [""], colours=[RED])
    picture = draw_boxes(image, [box], ["jellyfish"], colours=[RED])
    plain = draw_boxes(image, [[200, 200, 400, 300]], [""], colours=[RED])
    tag = len(pixels_of(inner, RED)) - len(pixels_of(plain, RED))
    assert len(pixels_of(picture, RED)) - len(pixels_of(frame_only, RED)) > 0.8 * tag


def test_tags_of_boxes_at_one_place_do_not_cover_each_other():
    box = [200, 200, 400, 300]
    image = Image.new("RGB", (640, 480), GREY)
    alone = len(pixels_of(draw_boxes(image, [box], ["fish"], [0.9], [BLUE]), BLUE))
    frame = len(pixels_of(draw_boxes(image, [box], [""], None, [BLUE]), BLUE))
    both = draw_boxes(image, [box, box], ["shark", "fish"], [0.5, 0.9], [RED, BLUE])
    assert len(pixels_of(both, BLUE)) >= 0.9 * alone  # the better one is on top, tag and all
    assert len(pixels_of(both, RED)) > 0.2 * (alone - frame)  # the frame is hidden, the tag is not


def test_every_name_gets_one_colour_when_none_are_given():
    boxes = [[20, 60, 120, 160], [220, 60, 320, 160], [420, 60, 520, 160]]
    picture = draw_boxes(Image.new("RGB", (640, 480), GREY), boxes, ["fish", "shark", "fish"])
    edges = [picture.getpixel((x, 110)) for x in (20, 220, 420)]
    assert edges[0] == edges[2] != edges[1]
    assert set(edges) == set(class_colours(2))


def test_class_colours_are_distinct_before_they_repeat():
    colours = class_colours(80)
    assert len(colours) == 80
    assert len(set(colours[:21])) == 21
    assert colours[21] == colours[0]


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    boxes=st.lists(st.lists(st.floats(-500, 500), min_size=4, max_size=4), max_size=6),
    name=st.text(max_size=60),
)
def test_any_boxes_and_names_can_be_drawn(size, boxes, name):
    picture = draw_boxes(Image.new("RGB", size), boxes, [name] * len(boxes), [0.5] * len(boxes))
    assert picture.width % size[0] == picture.height % size[1] == 0


def test_a_contact_sheet_shows_every_image_in_its_row_and_column():
    colours = class_colours(5)
    images = [Image.new("RGB", (200, 100), colour) for colour in colours]
    sheet = contact_sheet(images, columns=3, padding=10, cell=100)
    assert sheet.size == (3 * 110 + 10, 2 * 60 + 10)
    for number, colour in enumerate(colours):
        assert sheet.getpixel((60 + number % 3 * 110, 35 + number // 3 * 60)) == colour
    assert sheet.getpixel((60 + 2 * 110, 35 + 60)) == (255, 255, 255)  # five images in six places


def test_titles_take_room_above_their_images_and_are_cut_to_fit():
    images = [Image.new("RGB", (100, 100), RED)] * 2
    plain = contact_sheet(images, columns=2, cell=100)
    titled = contact_sheet(images, columns=2, cell=100, titles=["a", "a title that is much too long for it"])
    assert titled.height > plain.height
    assert titled.width == plain.width
    dark = np.asarray(titled.convert("L")) < 70
    assert dark[:, : titled.width // 2].any()
    assert not dark[:, -12:].any()
