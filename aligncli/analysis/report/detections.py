"""The part of a page that shows detections beside ground truth, of one run or of several on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aligncli.analysis.report import gallery
from aligncli.analysis.report.embed import embed_photo
from aligncli.analysis.report.facts import Evaluated, RunFacts
from aligncli.analysis.report.page import Block, Card, Gallery, Picture, Text
from aligncli.engine.image_scores import ImageScore
from aligncli.errors import DataError

Side = tuple[str, dict[int, list[gallery.Box]]]  # a label, and boxes by image id
Shown = Sequence[tuple[str, Evaluated]]  # runs by name; the first one's images are shown, and ranked by its detections


def detection_blocks(runs: Sequence[RunFacts]) -> Iterator[Block]:
    """The rule, the images, and why a run is not there."""
    known = [(run.name, run.evaluated) for run in runs if isinstance(run.evaluated, Evaluated)]
    if not known:
        return
    name, first = known[0]
    shown = [(run, found) for run, found in known if found.truth == first.truth]
    left_out = [run for run, found in known if found.truth != first.truth]
    yield Text((gallery.RULE + (f" Ranked by {name}." if len(shown) > 1 else ""), _thresholds(shown)))
    if left_out:
        yield Text((f"Evaluated on other images, and not shown here: {', '.join(left_out)}.",))
    try:
        yield from list(_galleries(shown))  # all of them, or the reason
    except DataError as error:
        yield Text((f"Not shown: {error}",))


def _thresholds(shown: Shown) -> str:
    alone = len(shown) == 1
    scores = (
        f"{found.images.threshold:.2f} (F1 {found.images.f1:.2f}{'' if alone else f', {run}'})" for run, found in shown
    )
    return f"That score is {', '.join(scores)}."


def _galleries(shown: Shown) -> Iterator[Gallery]:
    _, first = shown[0]
    categories = first.truth["categories"]
    sides: list[Side] = [("ground truth", gallery.boxes_of(first.truth["annotations"], categories))]
    for run, found in shown:
        boxes = gallery.boxes_of(found.detections, categories, threshold=found.images.threshold)
        sides.append((run if len(shown) > 1 else "detections", boxes))
    names = {record["id"]: record["file_name"] for record in first.truth["images"]}
    for title, images in gallery.pick_images(first.images).items():
        cards = tuple(_card(first, image, names[image.image_id], sides) for image in images)
        yield Gallery(title, cards)


def _card(first: Evaluated, image: ImageScore, name: str, sides: Sequence[Side]) -> Card:
    pixels = gallery.open_image(first.dataset, image)
    pictures: list[tuple[str, Picture]] = []
    for label, boxes in sides:
        shown = boxes.get(image.image_id, [])
        drawn = gallery.draw(pixels, shown, num_classes=len(first.truth["categories"]))
        pictures.append((label, embed_photo(drawn, f"{name}, {label}: {gallery.describe(shown)}")))
    counts = f"objects {image.num_objects}, found {image.num_found}, false detections {image.num_false}"
    return Card(f"{name}: {counts}", tuple(pictures))
