"""The page as data, and its HTML. What a page shows is text: the template escapes all of it.

Pictures are data URIs; the page's own policy forbids scripts and everything from elsewhere, so that it is safe to
open and to send, whatever a class or a file is called.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aligncli.plain import printable


class DataURI(str):
    """`data:TYPE;base64,...`"""

    __slots__ = ()


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    lines: tuple[str, ...]
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Table:
    """The first column names its row; the others hold numbers, or words.

    Folded: its rows show on a click. Beside: it stands beside the chart before it, where the page is wide enough.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    folded: bool = False
    beside: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """An image in two coats: `dark` replaces `light` where the reader prefers that; sizes in CSS pixels."""

    light: DataURI
    alt: str
    width: int
    height: int
    dark: DataURI | None = None


@dataclass(frozen=True)
class Figure:
    """A picture with its caption. Wide ones take the page's width, and scroll on a phone."""

    picture: Picture
    caption: str
    wide: bool = False
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Card:
    """Pictures of the same image, each under a label."""

    caption: str
    pictures: tuple[tuple[str, Picture], ...]


@dataclass(frozen=True)
class Gallery:
    """Cards under a title."""

    title: str
    cards: tuple[Card, ...]
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Fields:
    """Names and values."""

    values: Mapping[str, str]
    kind: ClassVar[str] = "fields"


Block = Text | Table | Figure | Gallery | Fields


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """What links to it: its title in lower case with hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """All of it. `highlights` are the few numbers that a reader wants first, by name."""

    title: str
    subtitle: str
    highlights: Mapping[str, str]
    sections: tuple[Section, ...]
    written: datetime.date = field(default_factory=lambda: datetime.datetime.now().date())


def render_page(page: Page) -> str:
    """The page as HTML. Titles of sections have to differ."""
    anchors = [section.anchor for section in page.sections]
    assert len(set(anchors)) == len(anchors), anchors
    environment = Environment(
        loader=PackageLoader("aligncli.analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(page=page)


def _one_line(value: Any) -> Any:
    """Every text without control codes, which escaping lets pass; what a macro has made is markup already."""
    return value if isinstance(value, DataURI | Markup) else printable(value)
