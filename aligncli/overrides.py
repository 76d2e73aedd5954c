"""`--set key=value` arguments as plain values, ready for `Recipe.changed`.

A value is JSON where it can be (`8`, `1e-3`, `true`, `null`, `[8, 16]`, `{"kind": "sgd"}`), a list where it
has commas (`8,16` or `3,`), and a string otherwise. Types are checked by the recipe, which knows them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from aligncli.errors import RecipeError


def parse_assignments(assignments: Sequence[str]) -> dict[str, object]:
    """`["a.b=1", "c=x"]` as `{"a.b": 1, "c": "x"}`, in order; a key given twice keeps its last value.

    Raises RecipeError for an argument without `=` or without a key.
    """
    changes: dict[str, object] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                f"cannot read the setting {assignment!r}: expected key=value, for example optimizer.lr=0.01"
            )
        changes.pop(key.strip(), None)
        changes[key.strip()] = parse_value(text.strip())
    return changes


def parse_value(text: str) -> object:
    """One value: JSON, a comma-separated list of such values, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if "," in text and text[0] not in "[{\"'":
        items = text.removesuffix(",").split(",")
        return [parse_value(item.strip()) for item in items]
    return text
