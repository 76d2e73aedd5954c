"""What finished runs detected, looked at again: two runs compared, and what costs one its AP.

Nothing is detected anew: a run's results.json and its own validation annotations are enough. hotcoco computes
(its compare and tide_errors); pycocotools has neither.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncli.build import build_dataset
from aligncli.engine.coco_tables import tabulate_detections, tabulate_ground_truth
from aligncli.engine.run_folder import RunFolder, read_json
from aligncli.errors import DataError, UserError

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
# TIDE (Bolya et al. 2020), in its order: what each would bring, were it repaired alone
ERRORS = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicates",
    "Bkg": "background",
    "Miss": "missed",
}
ASPECTS = {"< 1.5": (0.0, 1.5), "1.5-3": (1.5, 3.0), "> 3": (3.0, math.inf)}  # long side / short side


@dataclass(frozen=True)
class Difference:
    """Of one metric, percent: run A, run B, B - A, and the 95 % bootstrap interval of that."""

    first: float
    second: float
    delta: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same images; `classes` is AP by class of A and B."""

    num_images: int
    samples: int
    metrics: dict[str, Difference]
    classes: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Errors:
    """One part of the objects at one IoU: AP there, and by kind of error what its repair alone would add, percent."""

    part: str
    iou: float
    num_objects: int
    average_precision: float
    gains: dict[str, float]


def compare_runs(first: Path, second: Path, *, samples: int = 1000, seed: int = 0) -> Comparison:
    """Paired bootstrap over images: how sure the difference between two runs is on these very images.

    It does not say how much another seed would change (studies do). Raises CheckpointError for a folder that is no
    evaluated run, and DataError where the two were evaluated on different images or boxes.
    """
    truth, other = (ground_truth(folder) for folder in (first, second))
    if truth != other:
        raise DataError(f"{first} and {second} were evaluated on different images: only equal ones can be compared")
    hotcoco = import_hotcoco()
    area_bins = RunFolder(first).read_recipe().evaluation.area_bins
    evaluations = [evaluate(truth, results(folder, truth), area_bins=area_bins) for folder in (first, second)]
    found = hotcoco.compare(*evaluations, n_bootstrap=samples, seed=seed)
    metrics = {}
    for name in METRICS:
        own, other = (_percent(found[key][name]) for key in ("metrics_a", "metrics_b"))
        interval = found["ci"][name]
        changes = (found["deltas"][name], interval["lower"], interval["upper"])
        if math.isnan(own + other):  # nothing to find
            changes = (math.nan,) * 3
        metrics[name] = Difference(own, other, *(100.0 * change for change in changes))
    classes = {item["cat_name"]: (_percent(item["ap_a"]), _percent(item["ap_b"])) for item in found["per_category"]}
    return Comparison(found["num_images"], samples, metrics, classes)


def find_errors(
    run_dir: Path, *, ious: tuple[float, ...] = (0.5, 0.75), progress: Callable[[int, int], None] = lambda *_: None
) -> list[Errors]:
    """`errors_of` a run's evaluation. Raises CheckpointError for a folder that is no evaluated run."""
    truth, area_bins = ground_truth(run_dir), RunFolder(run_dir).read_recipe().evaluation.area_bins
    return errors_of(truth, results(run_dir, truth), area_bins=area_bins, ious=ious, progress=progress)


def errors_of(
    truth: dict[str, Any],
    detections: list[dict[str, Any]],
    *,
    area_bins: tuple[float, float],
    ious: tuple[float, ...] = (0.5, 0.75),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Errors]:
    """What costs AP, over all objects, by size and by aspect ratio, at each IoU that counts as found.

    Of a part of the objects all others are ignored, as crowd regions are: what lies on them is no error.
    """
    parts = _parts(area_bins)
    wanted = [(name, chosen, iou) for name, chosen in parts.items() for iou in ious]
    found = []
    for number, (name, chosen, iou) in enumerate(wanted):
        progress(number, len(wanted))
        found.append(_errors(name, _only(truth, chosen), detections, iou))
    progress(len(wanted), len(wanted))
    return found


def ground_truth(run_dir: Path) -> dict[str, Any]:
    """The COCO document that the run was evaluated against. Raises CheckpointError, DataError."""
    return build_dataset(RunFolder(run_dir).read_recipe(), "val").ground_truth()


def results(run_dir: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The detections of a run's evaluation. Raises CheckpointError without any, DataError where they are malformed."""
    path = RunFolder(run_dir).results_path
    detections = read_json(path)
    tabulate_detections(detections, tabulate_ground_truth(truth), source=str(path))
    return detections


def import_hotcoco() -> Any:
    """The package. Raises UserError on a platform without it."""
    try:
        import hotcoco
    except ImportError as error:
        raise UserError(f"this needs hotcoco, which cannot be imported here ({error})") from error
    return hotcoco


def evaluate(
    truth: Mapping[str, Any], detections: list[dict[str, Any]], *, area_bins: tuple[float, float] | None = None
) -> Any:
    """hotcoco's evaluation of boxes."""
    hotcoco = import_hotcoco()
    document = hotcoco.COCO(dict(truth))
    evaluation = hotcoco.COCOeval(document, document.load_res(detections), "bbox")
    if area_bins is not None:
        small, large = area_bins
        ranges = [[0.0, 1e10], [0.0, small], [small, large], [large, 1e10]]
        with warnings.catch_warnings():  # ours are the recipe's own bins
            warnings.simplefilter("ignore", UserWarning)
            evaluation.params.area_rng = ranges
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _errors(name: str, truth: dict[str, Any], detections: list[dict[str, Any]], iou: float) -> Errors:
    found = evaluate(truth, detections).tide_errors(pos_thr=iou)
    return Errors(
        part=name,
        iou=iou,
        num_objects=sum(not record["iscrowd"] for record in truth["annotations"]),
        average_precision=_percent(found["ap_base"]),
        gains={title: _percent(found["delta_ap"][key]) for key, title in ERRORS.items()},
    )


def _parts(area_bins: tuple[float, float]) -> dict[str, Callable[[Mapping[str, Any]], bool]]:
    """Which objects belong to a part, by its name."""
    small, large = area_bins

    def sized(low: float, high: float) -> Callable[[Mapping[str, Any]], bool]:
        return lambda record: low <= record["area"] < high

    def shaped(low: float, high: float) -> Callable[[Mapping[str, Any]], bool]:
        return lambda record: low <= _aspect(record["bbox"]) < high

    return {
        "all": lambda _: True,
        "small": sized(0.0, small),
        "medium": sized(small, large),
        "large": sized(large, math.inf),
        **{f"aspect {name}": shaped(*limits) for name, limits in ASPECTS.items()},
    }


def _aspect(box: list[float]) -> float:
    shorter, longer = sorted(box[2:])
    return longer / shorter if shorter > 0 else math.inf


def _only(truth: dict[str, Any], chosen: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The same document with every other object as a region to ignore."""
    records = [{**record, "iscrowd": int(record["iscrowd"] or not chosen(record))} for record in truth["annotations"]]
    return {**truth, "annotations": records}


def _percent(share: float | None) -> float:
    """Percent of a share; NaN where it is undefined, which hotcoco writes as None or below zero."""
    return math.nan if share is None or math.isnan(share) or share < 0 else 100.0 * share
