"""A page as a browser would take it apart: what it loads, what it shows, and whether all of it is well-formed."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "link", "img", "source", "br"}


class PageReader(HTMLParser):
    """Collects a page's elements, ids and text; `faults` are tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of that name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def resources(self) -> list[str]:
        """Every address that a browser would load from."""
        names = ("src", "srcset", "href", "action", "poster", "data")
        return [attributes[name] or "" for _, attributes in self.elements for name in names if name in attributes]


def decoded_size(uri: str) -> tuple[int, int]:
    """Width and height of a data URI's image. Fails where it is none."""
    media_type, _, content = uri.partition(";base64,")
    body = base64.b64decode(content, validate=True)
    if media_type == "data:image/svg+xml":
        root = ET.fromstring(body)
        return tuple(round(float(root.attrib[side].removesuffix("pt"))) for side in ("width", "height"))  # type: ignore[return-value]
    assert media_type == "data:image/jpeg"
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        return image.size
