"""What is worth knowing of a sound document in COCO instance format, and no fault: `aligncli data check` notes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aligncli.data.coco_faults import Fault


def find_notes(document: dict[str, Any]) -> Iterator[Fault]:
    """Ids of 0, which other tools trip over, and classes that nothing is annotated with.

    Of documents without a fatal fault only.
    """
    for row, record in enumerate(document["categories"]):
        if record["id"] == 0:
            yield _note(f"categories[{row}].id", "is 0, which some tools take for background; here it is a class")
    for row, record in enumerate(document["annotations"]):
        if type(record.get("id")) is int and record["id"] == 0:
            kind = "is 0, for which pycocotools counts a found object as missed; here ids are given anew"
            yield _note(f"annotations[{row}].id", kind)
    used = {record["category_id"] for record in document["annotations"]}
    for row, record in enumerate(document["categories"]):
        if record["id"] not in used:
            yield _note(f"categories[{row}]", "has no annotation", repr(record["name"]))


def _note(where: str, kind: str, detail: str = "") -> Fault:
    return Fault(where, kind, detail, fatal=False)
