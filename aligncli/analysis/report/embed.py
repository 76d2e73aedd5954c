"""Figures and photographs as data URIs. Charts are SVG, in a light and a dark coat; photographs are JPEG."""

from __future__ import annotations

import base64
import io
import re
import warnings

from matplotlib.figure import Figure
from PIL import Image

from aligncli.analysis.figures import GRID, INK, MUTED, figure_style
from aligncli.analysis.report.page import DataURI, Picture

CSS_PIXELS = 96  # an inch
LONGEST_PHOTO = 640  # pixels: sharp enough in half a page's width
JPEG_QUALITY = 82
# What matplotlib writes, and what stands for it on dark paper; black is also what it leaves out.
DARK = {
    INK: "#e8eaed",
    MUTED: "#9aa4b0",
    GRID: "#3a424b",
    "#000000": "#e8eaed",
    "#ffffff": "#1b2027",
    "#0072b2": "#4c93ff",
    "#56b4e9": "#a5e3ff",  # blue and sky
}


def embed_chart(figure: Figure, alt: str) -> Picture:
    """A drawn figure on transparent paper, as two SVG images: text, lines and paper change their colours."""
    file = io.StringIO()
    with figure_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a class name in another script
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # what comes next keeps the places of things: half the time
    light = file.getvalue()
    dark = re.sub("|".join(DARK), lambda found: DARK[found.group()], light)
    dark = dark.replace("<svg ", f'<svg fill="{DARK["#000000"]}" ', 1)
    width, height = (round(inches * CSS_PIXELS) for inches in figure.get_size_inches())
    return Picture(_uri("image/svg+xml", light.encode()), alt, width, height, dark=_uri("image/svg+xml", dark.encode()))


def embed_raster(figure: Figure, alt: str, *, dpi: int = 130) -> Picture:
    """A figure that holds photographs, on its own white paper."""
    file = io.BytesIO()
    with figure_style():
        figure.savefig(file, format="png", dpi=dpi)
    with Image.open(file) as image:
        return _jpeg(image.convert("RGB"), alt)


def embed_photo(image: Image.Image, alt: str) -> Picture:
    """A picture of mode RGB, with a long side of at most LONGEST_PHOTO."""
    image = image.copy()
    image.thumbnail((LONGEST_PHOTO, LONGEST_PHOTO), Image.Resampling.LANCZOS)
    return _jpeg(image, alt)


def _jpeg(image: Image.Image, alt: str) -> Picture:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return Picture(_uri("image/jpeg", file.getvalue()), alt, image.width, image.height)


def _uri(media_type: str, content: bytes) -> DataURI:
    return DataURI(f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}")
