"""What a model starts from: nothing, the packaged shapes weights, ImageNet, or a user's file.

The packaged file plays the part that ImageNet plays in the paper: backbone and neck, pre-trained on images
that no other experiment uses (recipe `pretrain_shapes`). ImageNet weights are torchvision's. A file is ours,
or of another project whose names weight_names.py knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from aligncli.config import AnchorConfig, Backbone, DenseDetectorConfig, Recipe, ResNetConfig, RetinaNetHeadConfig
from aligncli.engine.checkpoint import load_weights, write_weights
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.torchvision_head import BOX_PREDICTOR, CLASS_PREDICTOR, adapt_head
from aligncli.engine.weight_files import read_weights, require_file
from aligncli.engine.weight_names import STEM, find_naming, for_rgb, require_origin
from aligncli.errors import CheckpointError

FEATURE_PARTS = ("backbone.", "neck.")
PREDICTORS = tuple(f"{name}.{part}" for name in (CLASS_PREDICTOR, BOX_PREDICTOR) for part in ("weight", "bias"))


@dataclass(frozen=True)
class Source:
    """Tensors under our names and where they are from; the class names for which they hold no row."""

    weights: dict[str, Tensor]
    title: str
    unknown_classes: tuple[str, ...] = ()


def initialize(model: nn.Module, recipe: Recipe, *, download: bool, class_names: Sequence[str]) -> str:
    """Load the recipe's `weights` into a new model; returns a line that says what was loaded.

    Raises CheckpointError: a missing file, weights of another architecture, or a download not asked for.
    """
    match recipe.weights:
        case "none":
            return "weights: random" + _random_advice(recipe.model.backbone)
        case "shapes":
            with as_file(files("aligncli.weights") / "shapes_tiny.safetensors") as path:
                source = Source(load_weights(path), "shapes")
        case "imagenet":
            source = Source(_imagenet(recipe.model.backbone, download=download), "imagenet")
        case path:
            source = _from_file(Path(path), model, recipe, class_names)
    return _load_fitting(model, source)


def require_weights(recipe: Recipe, *, download: bool) -> None:
    """Raises CheckpointError where `initialize` would not find the recipe's `weights`; reads nothing."""
    match recipe.weights:
        case "none" | "shapes":
            pass
        case "imagenet":
            _imagenet_source(recipe.model.backbone, download=download)
        case path:
            require_file(Path(path))


def load_complete(model: nn.Module, recipe: Recipe, path: Path, *, class_names: Sequence[str]) -> str:
    """Load a file that must hold the whole of a trained model; returns what it is, with whose names.

    Raises CheckpointError naming the first tensor or class that it does not hold.
    """
    source = _from_file(path, model, recipe, class_names)
    if source.unknown_classes:
        raise CheckpointError(
            f"weights in {path} know no class {source.unknown_classes[0]!r} ({len(source.unknown_classes)} of "
            f"{len(class_names)} are unknown): fine-tune them with aligncli train --set weights={path}"
        )
    own = model.state_dict()
    missing = _missing(own, _fitting(own, source.weights))
    if missing:
        raise CheckpointError(
            f"weights in {source.title} are not those of recipe {recipe.name!r}: {len(missing)} of {len(own)} tensors "
            f"are missing or of another shape, first {missing[0]!r}; --recipe names another recipe"
        )
    _load_fitting(model, source)
    return source.title


def extract_features(run_dir: Path, path: Path) -> int:
    """Write a run's backbone and neck to a .safetensors file that other recipes can start from.

    Returns the number of tensors. Raises CheckpointError where `run_dir` holds no weights.
    """
    weights = load_weights(RunFolder(run_dir).weights_path)
    kept = {name: x for name, x in weights.items() if name.startswith(FEATURE_PARTS) and x.is_floating_point()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(kept, path)
    return len(kept)


def _random_advice(backbone: Backbone) -> str:
    """What to change where random weights are frozen, or normalised by statistics that were never taken."""
    if not (getattr(backbone, "frozen_norm", False) or getattr(backbone, "frozen_stages", 0)):
        return ""
    return (
        ", in a backbone that is partly frozen; to train from scratch, add "
        "--set model.backbone.frozen_norm=false --set model.backbone.frozen_stages=0"
    )


def _from_file(path: Path, model: nn.Module, recipe: Recipe, class_names: Sequence[str]) -> Source:
    """A user's file: ours where it has a name of ours, else translated."""
    weights, own = read_weights(path), model.state_dict()
    if weights.keys() & own.keys():
        return Source(weights, str(path))
    naming = find_naming(weights, source=str(path))
    ours = naming.translate(weights)
    if isinstance(recipe.model.backbone, ResNetConfig):
        origin = recipe.model.backbone.origin
        require_origin(weights, origin, source=str(path))
        if origin != "torchvision":
            ours[STEM] = for_rgb(ours[STEM], origin)
    unknown: tuple[str, ...] = ()
    if CLASS_PREDICTOR + ".bias" in ours:
        predictors = {name: ours.pop(name) for name in PREDICTORS}
        anchors = _retinanet_anchors(recipe)
        head = None if anchors is None else adapt_head(predictors, own, anchors, class_names)
        if head is not None:
            ours |= head.weights
            unknown = head.unknown_classes
    return Source(ours, f"{path} ({naming.title})", unknown)


def _retinanet_anchors(recipe: Recipe) -> AnchorConfig | None:
    """Of a RetinaNet, whose predictors correspond to torchvision's."""
    match recipe.model:
        case DenseDetectorConfig(head=RetinaNetHeadConfig(anchors=anchors)):
            return anchors
    return None


def _fitting(own: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in weights.items() if name in own and own[name].shape == x.shape}


def _missing(own: dict[str, Tensor], fitting: dict[str, Tensor]) -> list[str]:
    """Names of ours that were not found. Frozen batch norms do not count batches, so counters may be absent."""
    return [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]


def _load_fitting(model: nn.Module, source: Source) -> str:
    """Load every tensor whose name and shape fit; the backbone has to be complete."""
    own = model.state_dict()
    fitting = _fitting(own, source.weights)
    missing = [name for name in _missing(own, fitting) if name.startswith("backbone.")]
    if missing:
        raise CheckpointError(
            f"weights {source.title!r} do not fit the recipe's backbone: {len(missing)} of its tensors are missing "
            f"or of another shape, first {missing[0]!r}; choose the backbone they were made with, or "
            "--set weights=none"
        )
    model.load_state_dict(fitting, strict=False)
    rest = f"; no row for class {', '.join(source.unknown_classes)}" if source.unknown_classes else ""
    return f"weights: {len(fitting)} of {len(own)} tensors from {source.title}, the rest random{rest}"


def _imagenet(backbone: Backbone, *, download: bool) -> dict[str, Tensor]:
    """torchvision's ImageNet-1k backbone under our names, from torch's cache or, if asked, its server."""
    source = _imagenet_source(backbone, download=download)
    state = source.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return find_naming(state, source=source.url).translate(state)


def _imagenet_source(backbone: Backbone, *, download: bool) -> WeightsEnum:
    """Where torchvision has them. Raises CheckpointError where it has none, or they are not in torch's cache."""
    if not isinstance(backbone, ResNetConfig) or backbone.origin != "torchvision":
        asked = getattr(backbone, "origin", backbone.kind)
        raise CheckpointError(
            f"weights 'imagenet' are torchvision's ResNets, and there are none for the backbone {asked!r}: "
            "give a file with --set weights=PATH"
        )
    name = backbone.name
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not (cached.exists() or download):
        raise CheckpointError(
            f"ImageNet weights for {name} are not on this machine ({cached}): add --download to fetch them from "
            f"{weights.url}, or --set weights=none to start from random ones"
        )
    return weights
