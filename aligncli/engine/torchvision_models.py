"""torchvision's detectors by name, `torchvision:fcos_resnet50_fpn`, under our conventions.

Their labels are COCO category ids 1..90 with gaps, 0 the background: here they become the contiguous labels of
a data set's categories, and detections of classes that it lacks are dropped. Our loader has resized the images,
so a model's own resize is taken out (its normalisation and padding stay). SSD and SSDlite scale every image to
one fixed size whatever its aspect: they keep that, and get the images as they are.
"""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.models import detection as torchvision_detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from aligncli.catalog import expand_user
from aligncli.config import EvaluationConfig, InputConfig
from aligncli.data.dataset import Categories
from aligncli.engine.import_run import coco_categories
from aligncli.engine.inference import LoadedDetector, check_device
from aligncli.engine.weight_files import TORCH_FILES, read_weights
from aligncli.errors import CheckpointError, DataError, UserError, first_line

PREFIX = "torchvision:"
NUM_LABELS = 91  # COCO's ids up to 90, and 0 for the background
NOT_FOR_BOXES = ("maskrcnn", "keypointrcnn")  # made for something else; their box heads are Faster R-CNN's
# These weights were converted from another framework, whose batch norms add nothing to the variance.
ZERO_EPSILON = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")


class TorchvisionDetector(nn.Module):
    """A torchvision detector that answers in labels 0..K-1; evaluation only.

    Args:
        network: trained on COCO's ids. Images go in without another resize.
        categories: whose labels come out, each of them one of COCO's.
    """

    label_of: Tensor

    def __init__(self, network: nn.Module, categories: Categories) -> None:
        super().__init__()
        self.network = network
        label_of = torch.full((NUM_LABELS,), -1)
        label_of[list(categories.coco_ids)] = torch.arange(len(categories))
        self.register_buffer("label_of", label_of, persistent=False)

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Images (3, h, w) in 0..1 to {"boxes" (D, 4) in their pixels, "scores" (D,) descending, "labels" (D,)}."""
        return [self._relabel(found) for found in self.network(list(images))]

    def _relabel(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        labels = self.label_of[found["labels"]]
        known = labels >= 0
        return {"boxes": found["boxes"][known], "scores": found["scores"][known], "labels": labels[known]}


@dataclass(frozen=True, kw_only=True)
class LoadedTorchvision(LoadedDetector):
    """A torchvision detector; it can serve any data set whose categories are among COCO's."""

    model: TorchvisionDetector

    def on(self, categories: Categories, *, source: str) -> Self:
        """The same network with the labels of these categories. Raises DataError for one that is not COCO's."""
        own = dict(zip(self.categories.coco_ids, self.categories.names))
        for coco_id, name in zip(categories.coco_ids, categories.names):
            if own.get(coco_id) != name:
                stands = f"where COCO has {own[coco_id]!r}" if coco_id in own else "which COCO does not have"
                raise DataError(
                    f"{source}: category id {coco_id} is {name!r}, {stands}: {self.name} detects COCO's classes, "
                    "by their ids and names"
                )
        model = TorchvisionDetector(self.model.network, categories).to(self.model.label_of.device)
        return replace(self, model=model.eval(), categories=categories)


def torchvision_names() -> list[str]:
    """Names of torchvision's box detectors."""
    names = list_models(module=torchvision_detection)
    return [name for name in names if not name.startswith(NOT_FOR_BOXES)]


def load_torchvision(
    source: str, *, weights: str = "default", download: bool = False, device: str = "cpu"
) -> LoadedTorchvision:
    """A detector of torchvision's, `torchvision:NAME`, in evaluation mode with COCO's 80 categories.

    Args:
        weights: "default" (torchvision's own, from torch's cache), "none" (random), or a path to a .pth or
            .safetensors file with such a network's state.
        download: allow "default" to be fetched where it is not cached.

    Raises UserError for an unknown name, CheckpointError, DeviceError.
    """
    check_device(device)
    name = _known_name(source)
    network = get_model(name, weights=None, weights_backbone=None)
    if weights == "none":
        note = "weights: random, so what it detects means nothing"
    else:
        path = _cached_weights(name, download=download) if weights == "default" else expand_user(Path(weights))
        network = _with_weights(network, name, path)
        note = f"weights: {path}"
    size = take_out_resize(network)
    categories = coco_categories()
    return LoadedTorchvision(
        name=PREFIX + name,
        model=TorchvisionDetector(network, categories).to(device).eval(),
        categories=categories,
        input=size,
        evaluation=EvaluationConfig(),
        amp="none",
        notes=(note,),
    )


class _AsGiven(GeneralizedRCNNTransform):
    """Normalise and pad, but do not resize."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """Nothing to do."""
        return image, target


def take_out_resize(network: nn.Module) -> InputConfig | None:
    """Leave the resize to our loader and say what it is; None for a network that wants its one fixed size."""
    own = network.transform
    assert isinstance(own, GeneralizedRCNNTransform)
    if own.fixed_size is not None:
        return None
    short_side: int = own.min_size[-1]  # pyright: ignore[reportIndexIssue]  (declared int, but made a tuple)
    long_side = own.max_size
    network.transform = _AsGiven(
        short_side, long_side, own.image_mean, own.image_std, size_divisible=own.size_divisible
    )
    return InputConfig(min_short_side=short_side, max_short_side=short_side, long_side=long_side)


def _known_name(source: str) -> str:
    name, names = source.removeprefix(PREFIX), torchvision_names()
    if name not in names:
        near = [known for known in names if name and known.startswith(name)]
        near += difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"there are {', '.join(names)}"
        raise UserError(f"torchvision has no box detector {name!r}: {hint}")
    return name


def _own_weights(name: str) -> WeightsEnum:
    return get_model_weights(name)["DEFAULT"]


def _cached_weights(name: str, *, download: bool) -> Path:
    """torchvision's own weight file in torch's cache, fetched where that is allowed. Raises CheckpointError."""
    url = _own_weights(name).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if path.exists():
        return path
    if not download:
        raise CheckpointError(
            f"weights of {PREFIX}{name} are not on this machine ({path}): add --download to fetch them from {url}, "
            "or choose --weights PATH, or --weights none for random ones"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_hash_prefix(url), progress=False)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise CheckpointError(f"{url} cannot be fetched: {first_line(error)}") from error
    return path


def _with_weights(network: nn.Module, name: str, path: Path) -> nn.Module:
    """The network with the state in `path`. Raises CheckpointError."""
    state = _read_state(path)
    if name in ZERO_EPSILON and _is_torchvisions(path, name):
        freeze_norms(network, epsilon=0.0)
    own = network.state_dict()
    wrong = [key for key in own.keys() ^ state.keys() if not key.endswith("num_batches_tracked")]
    wrong += [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if wrong:
        raise CheckpointError(
            f"weights {path} are not those of {PREFIX}{name} with COCO's classes: "
            f"{len(wrong)} tensors differ, first {min(wrong)!r}"
        )
    network.load_state_dict(state, strict=False)
    return network


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, see `read_weights`. Raises CheckpointError."""
    if path.suffix not in (".safetensors", *TORCH_FILES):
        raise CheckpointError(f"weights {path}: expected default, none, or a .pth or .safetensors file")
    if not path.is_file():
        raise CheckpointError(f"weights {path} do not exist")
    return read_weights(path)


def _is_torchvisions(path: Path, name: str) -> bool:
    """Whether the file is the one that torchvision publishes, whatever it is called here."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_hash_prefix(_own_weights(name).url))


def _hash_prefix(url: str) -> str:
    """`258fb6c6` of `.../fasterrcnn_resnet50_fpn_coco-258fb6c6.pth`: how its SHA-256 begins."""
    return Path(url).stem.rsplit("-", 1)[1]


def freeze_norms(module: nn.Module, *, epsilon: float) -> None:
    """Every batch norm becomes a frozen one; their states have the same names."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=epsilon))
        else:
            freeze_norms(child, epsilon=epsilon)
