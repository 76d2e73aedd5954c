"""Detections as files for COCO's evaluation server, which alone has the annotations of test-dev (Table 7).

The format is that of a run's results.json: one list of {"image_id", "category_id", "bbox", "score"}, with
COCO's ids and boxes as x, y, width, height in pixels of the original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncli.build import NO_PARTS, Parts
from aligncli.catalog import data_in
from aligncli.config import CocoConfig
from aligncli.data.coco import CocoDataset
from aligncli.engine.inference import LoadedDetector, LoadedRun, detect_dataset, load_run
from aligncli.engine.metrics import to_coco_results
from aligncli.engine.reporter import Reporter, SilentReporter
from aligncli.engine.run_folder import write_json
from aligncli.errors import DataError

SERVER_NAME = "detections_test-dev2017_ALG_results.json"  # the server's rule; ALG is the submitter's to choose


@dataclass(frozen=True)
class Submission:
    """A file for the server and what it holds."""

    num_images: int
    num_detections: int
    path: Path


def write_submission(
    run_dir: Path,
    data: Path | None,
    out: Path,
    *,
    device: str = "cpu",
    parts: Parts = NO_PARTS,
    reporter: Reporter | None = None,
) -> Submission:
    """Detect with a run's newest weights on COCO's test-dev images and write `out`, whole or not at all.

    `data` is the COCO folder (None: the run's own) with test2017/ and annotations/image_info_test-dev2017.json.
    The run folder stays as it is. Raises CheckpointError, DeviceError, RecipeError where one of the run's own
    `parts` is missing, and DataError: for the folder, for images that cannot be read, for other classes than
    the run's, and where `out` is a folder. Raises OSError where `out` cannot be written.
    """
    return submit(load_run(run_dir, device=device, parts=parts), data, out, device=device, reporter=reporter)


def submit(
    detector: LoadedDetector, data: Path | None, out: Path, *, device: str, reporter: Reporter | None = None
) -> Submission:
    """As `write_submission`, with any detector; one that is no run has no data of its own."""
    reporter = reporter or SilentReporter()
    make_way(out)
    dataset = CocoDataset(_test_layout(detector, data), "test")
    fitting = detector.on(dataset.categories, source=str(data or f"data of {detector.name}"))
    for note in detector.notes:
        reporter.message(note)
    detections: list[dict[str, Any]] = []
    for outputs, targets in detect_dataset(fitting, dataset, device=device, reporter=reporter):
        detections.extend(to_coco_results(outputs, targets, dataset.categories))
    write_detections(out, detections)
    return Submission(num_images=len(dataset), num_detections=len(detections), path=out)


def make_way(path: Path) -> None:
    """Make the folder that a file will go to, before hours of detection. Raises DataError, OSError."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: expected the name of a .json file for the detections")
    path.parent.mkdir(parents=True, exist_ok=True)


def write_detections(path: Path, detections: Sequence[dict[str, Any]]) -> None:
    """Write detections in COCO's result format; a reader never sees a part of them."""
    write_json(path, detections, indent=None)


def _test_layout(detector: LoadedDetector, data: Path | None) -> CocoConfig:
    own = detector.recipe.data if isinstance(detector, LoadedRun) else None
    preferred = own if isinstance(own, CocoConfig) else None
    if data is not None:
        return data_in(data, preferred=preferred, split="test")
    if preferred is None:
        lacks = f"the {own.kind} of {detector.name} have no test split" if own else f"{detector.name} has no data"
        raise DataError(f"{lacks}: add --data COCO, a folder with test2017/ and {CocoConfig(root='').test_annotations}")
    return preferred
