"""Values as JSON holds them, and text as one line of a terminal or a page can show it."""

import json
import math
from collections.abc import Mapping
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError, also where it is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def only_finite(value: Any) -> Any:
    """The same value, in mappings and sequences too, with None for NaN and infinities, which JSON does not know."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: only_finite(item) for key, item in value.items()}
        case list() | tuple():
            return [only_finite(item) for item in value]
        case _:
            return value


def printable(text: object) -> str:
    """One line without control codes or undecodable bytes: file and class names can hold both."""
    line = " ".join(str(text).expandtabs(1).splitlines())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
