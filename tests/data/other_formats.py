"""Small data sets in YOLO's and Pascal VOC's formats, to be spoilt."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>
<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)


def yolo_folder(root: Path, *, yaml: str | None = "names: [cat, dog]\n") -> Path:
    """Images a, b in images/, with labels; c has none."""
    for name in "abc":
        picture(root / "images" / f"{name}.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.2\n\n0 0.1 0.1 0.4 0.4\n")
    (root / "labels" / "b.txt").write_text("0 0.25 0.5 0.75 0.5 0.75 1.0\n")
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def voc_folder(root: Path, objects: dict[str, list[str]]) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for name, items in objects.items():
        picture(root / "JPEGImages" / f"{name}.jpg")
        xml = f"<annotation><filename>{name}.jpg</filename>{''.join(items)}</annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    return root
