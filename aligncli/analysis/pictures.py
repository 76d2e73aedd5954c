"""Pictures of boxes: detections or ground truth drawn on an image, and sheets of many images.

Boxes are xyxy in pixels of the image as passed. Small images are enlarged first, and lines and text scale
with the picture, so that a label reads equally well on a 128-pixel image and on a photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]  # RGB, 0..255
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom

# Okabe and Ito's palette, told apart with every common kind of colour blindness; black is left out.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
SHADES = (0.0, 0.55, -0.4)  # plain, then mixed with white, then with black: 21 colours
READABLE_SIDE = 480  # pixels: smaller pictures are enlarged, by whole factors, to about this long side
CROWDED = 20  # boxes: from here on tags are smaller
PAPER: Colour = (255, 255, 255)
INK: Colour = (30, 30, 30)


def class_colours(num_classes: int) -> tuple[Colour, ...]:
    """One colour a class, colour-blind friendly; 21 distinct ones, which then repeat."""
    colours = [_shade(colour, shade) for shade in SHADES for colour in PALETTE]
    return tuple(colours[label % len(colours)] for label in range(num_classes))


def draw_boxes(
    image: Image.Image,
    boxes: ArrayLike,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    colours: Sequence[Colour] | None = None,
    *,
    emphasis: float = 1.0,
) -> Image.Image:
    """A new RGB picture with D boxes, each with a tag of its name and score.

    `boxes` (D, 4) xyxy pixels of `image`; `names`, `scores` and `colours` have D entries. Without colours,
    every name that occurs gets its own. The best scores are drawn last, hence on top. `emphasis` is a factor on the
    sizes of lines and tags, for a picture that will be shown small.
    """
    factor = _enlargement(image)
    canvas = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    rectangles = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * factor
    if colours is None:
        known = sorted(set(names))
        by_name = dict(zip(known, class_colours(len(known))))
        colours = [by_name[name] for name in names]
    ranking = range(len(rectangles)) if scores is None else np.argsort(scores, kind="stable").tolist()
    order: list[int] = list(ranking)
    width = max(2, round(emphasis * max(canvas.size) / 320))
    pen = ImageDraw.Draw(canvas)
    for index in order:
        _frame(pen, rectangles[index], colours[index], width)
    font = _font(round(emphasis * _text_size(canvas.size, len(rectangles))))
    texts = [_printable(name) for name in names]
    if scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores)]
    taken: dict[int, Rectangle] = {}
    for index in order[::-1]:  # the best detection takes the best place for its tag
        taken[index] = _place_tag(canvas.size, rectangles[index], texts[index], font, list(taken.values()))
    for index in order:
        _draw_tag(pen, taken[index], texts[index], colours[index], font)
    return canvas


def contact_sheet(
    images: Sequence[Image.Image],
    *,
    columns: int,
    padding: int = 12,
    titles: Sequence[str] | None = None,
    cell: int = READABLE_SIDE,
) -> Image.Image:
    """Images in rows of `columns`, each scaled to a long side of `cell` pixels, titles above them."""
    pictures = [_fit(image, cell) for image in images]
    font = _font(max(13, cell // 30))
    title_height = round(font.size * 1.6) if titles else 0
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    cell_width = max(picture.width for picture in pictures)
    heights = [max(picture.height for picture in row) for row in rows]
    width = padding + min(columns, len(pictures)) * (cell_width + padding)
    sheet = Image.new("RGB", (width, padding + sum(heights) + len(rows) * (title_height + padding)), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = padding
    for number, (row, height) in enumerate(zip(rows, heights)):
        for column, picture in enumerate(row):
            left = padding + column * (cell_width + padding)
            offset = (cell_width - picture.width) // 2
            if titles:
                title = _shorten(_printable(titles[number * columns + column]), font, cell_width)
                pen.text((left + cell_width / 2, top + title_height / 2), title, INK, font, anchor="mm")
            sheet.paste(picture, (left + offset, top + title_height))
        top += title_height + height + padding
    return sheet


def _enlargement(image: Image.Image) -> int:
    return max(1, round(READABLE_SIDE / max(image.size)))


def _text_size(size: tuple[int, int], num_boxes: int) -> int:
    """Font size in pixels for a picture of that size; smaller where many tags would cover what they name."""
    return max(10, round(max(size) / (48 if num_boxes <= CROWDED else 64)))


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along on every platform."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _frame(pen: ImageDraw.ImageDraw, box: np.ndarray, colour: Colour, width: int) -> None:
    """A line that lies on the box's edge, between two dark hairlines: it shows on any background."""
    left, top, right, bottom = (round(float(side)) for side in box)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    out = width // 2
    pen.rectangle((left - out - 1, top - out - 1, right + out + 1, bottom + out + 1), outline=INK, width=width + 2)
    pen.rectangle((left - out, top - out, right + out, bottom + out), outline=colour, width=width)


def _place_tag(
    size: tuple[int, int],
    box: np.ndarray,
    text: str,
    font: ImageFont.FreeTypeFont,
    taken: Sequence[Rectangle],
) -> Rectangle:
    """The first free place around the box's corners, inside the picture; at the box if all are taken."""
    margin = _tag_margin(font)
    width, height = min(font.getlength(text) + 2 * margin, size[0]), font.size * 1.2 + margin
    left, top, right, bottom = (float(side) for side in box)
    corners = [(x, y) for y in (top - height, top, bottom - height, bottom) for x in (left, right - width)]
    x = min(max(left, 0.0), size[0] - width)
    y = min(top - height if top >= height else max(top, 0.0), size[1] - height)
    clamped = (x, y, x + width, y + height)
    places = [(x, y, x + width, y + height) for x, y in corners]
    inside = [p for p in places if p[0] >= 0 and p[1] >= 0 and p[2] <= size[0] and p[3] <= size[1]]
    free = (place for place in (*inside, clamped) if not any(_overlap(place, other) for other in taken))
    return next(free, clamped)


def _draw_tag(
    pen: ImageDraw.ImageDraw, place: Rectangle, text: str, colour: Colour, font: ImageFont.FreeTypeFont
) -> None:
    margin = _tag_margin(font)
    pen.rounded_rectangle(place, radius=margin, fill=colour, outline=INK, width=1)
    text = _shorten(text, font, place[2] - place[0] - 2 * margin + 1)
    pen.text((place[0] + margin, (place[1] + place[3]) / 2), text, _text_colour(colour), font, anchor="lm")


def _tag_margin(font: ImageFont.FreeTypeFont) -> int:
    return max(2, round(font.size / 5))


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text_colour(background: Colour) -> Colour:
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else PAPER


def _shade(colour: Colour, amount: float) -> Colour:
    """Towards white for amount > 0, towards black for amount < 0."""
    goal = 255 if amount > 0 else 0
    red, green, blue = (round(part + (goal - part) * abs(amount)) for part in colour)
    return red, green, blue


def _printable(text: str) -> str:
    """On one line; Pillow's text layout fails on line breaks and on some control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
