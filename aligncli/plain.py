"""Values as JSON holds them."""

import math
from collections.abc import Mapping
from typing import Any


def without_nan(value: Any) -> Any:
    """The same value, in mappings and sequences too, with None for NaN, which JSON does not know."""
    match value:
        case float() if math.isnan(value):
            return None
        case Mapping():
            return {key: without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [without_nan(item) for item in value]
        case _:
            return value
