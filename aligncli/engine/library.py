"""A detector for a program of one's own: from a recipe's name to a module, in one call."""

from collections.abc import Mapping
from pathlib import Path

from aligncli.build import build_model
from aligncli.catalog import load_recipe_and_parts
from aligncli.engine.weights import initialize
from aligncli.errors import UserError
from aligncli.models.detector import Detector


def build_detector(
    recipe: str | Path,
    *,
    num_classes: int,
    changes: Mapping[str, object] | None = None,
    pretrained: bool = False,
    download: bool = False,
) -> Detector:
    """The detector of a recipe, in training mode, to be trained in a loop of one's own.

    In training, `detector(images, targets)` is a dict of scalar losses; after `.eval()`, `detector(images)` is a list
    of {"boxes" (D, 4), "scores" (D,), "labels" (D,)}, as with torchvision's detectors. Images are a list of (3, h, w)
    float 0..1, of any sizes; boxes are xyxy in their pixels; labels are 0..num_classes - 1.

    Args:
        recipe: a packaged one by name (`aligncli recipes list`), or a .py (which is run) or .json file.
        num_classes: K, without a class for the background.
        changes: keys of the recipe and their values, as `--set` takes them: {"model.dpm.tower.num_convs": 2}.
        pretrained: start from the recipe's `weights` (the packaged ones, ImageNet's, or a file) instead of random
            ones. download: allow ImageNet's to be fetched from torchvision's server.

    Raises RecipeError for an unknown recipe or key, CheckpointError where weights are missing or do not fit.
    """
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    loaded, parts = load_recipe_and_parts(str(recipe))
    loaded = loaded.changed(dict(changes or {}))
    detector = build_model(loaded, num_classes=num_classes, parts=parts)
    if pretrained:
        unnamed = [f"class {label}" for label in range(num_classes)]
        initialize(detector, loaded, download=download, class_names=unnamed)
    return detector
