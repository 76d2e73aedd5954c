"""The contenders of `aligncli bench model`: detectors from image to boxes, all on the same pixels.

RECIPE              ours, with random weights: they do not change the time but in post-processing
RUN                 ours, a run folder's weights
torchvision:NAME    torchvision's, with random weights; it scores 91 classes, COCO's ids, where ours score 80
...@bfloat16        one of these in a type of its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aligncli.analysis.bench.anatomy import dissect
from aligncli.analysis.complexity import count_flops
from aligncli.build import build_model
from aligncli.catalog import NO_PARTS, Parts, load_parts, load_recipe, load_recipe_and_parts, recipe_names
from aligncli.config import DenseDetectorConfig, Recipe
from aligncli.data.painting import SHAPES
from aligncli.engine.detectors import is_torchvision
from aligncli.engine.inference import autocast, load_run
from aligncli.engine.run_folder import RunFolder
from aligncli.engine.torchvision_models import PREFIX, load_torchvision, torchvision_names
from aligncli.errors import UserError
from aligncli.models.branches import PRIOR_PROBABILITY
from aligncli.models.folding import fold_norms

NUM_COCO_CLASSES = 80
PADDED_TO = 32  # pixels; by torchvision's detectors, and by ours unless a recipe says otherwise
AMP = {"float32": "none", "bfloat16": "bf16", "float16": "fp16"}
PRIOR_LOGIT = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)


@dataclass(frozen=True)
class ModelCase:
    """Everything that decides what is computed but the detector.

    size: height and width in pixels. dtype: under autocast, if it is not float32. crowded: raise the classifier's
    prior, where weights are random, so that every level has all the candidates it may have. channels_last:
    lay out torchvision's detectors so, too; ours always are. tf32: on CUDA, what float32 is.
    """

    size: tuple[int, int] = (800, 1333)
    batch: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    crowded: bool = False
    channels_last: bool = False
    tf32: bool = False

    def small(self) -> ModelCase:
        """One small image, to load code with."""
        return replace(self, size=(64, 64), batch=1)


@dataclass(frozen=True)
class Contender:
    """Where a detector comes from: a recipe, a run folder and its recipe, or torchvision under `origin`.

    code: a file with parts of the user's own that the recipe uses, if it is no such file itself. dtype: where it is not
    the case's.
    """

    name: str
    recipe: Recipe | None = None
    run_dir: Path | None = None
    code: Path | None = None
    dtype: str = ""

    @property
    def origin(self) -> str:
        """The name without the type."""
        return self.name.removesuffix(f"@{self.dtype}")

    @property
    def has_random_weights(self) -> bool:
        return self.run_dir is None

    @property
    def is_retinanet(self) -> bool:
        """With any anchors."""
        if self.recipe is None:
            return self.name.startswith(f"{PREFIX}retinanet")
        model = self.recipe.model
        return isinstance(model, DenseDetectorConfig) and model.head.kind == "retinanet"


def find_contender(name: str, *, code: Path | None = None) -> Contender:
    """By what people type: a recipe's name or file, a run folder, or torchvision:NAME; nothing is built yet.

    Behind an @ may follow a type of its own. A packaged recipe goes before a folder of its name. Raises UserErrors.
    """
    origin, _, dtype = name.rpartition("@")
    if dtype in AMP and not Path(name).expanduser().exists():
        return replace(find_contender(origin, code=code), name=name, dtype=dtype)
    if is_torchvision(name):
        theirs, known = name.removeprefix(PREFIX), torchvision_names()
        if theirs not in known:
            raise UserError(f"torchvision has no box detector {theirs!r}: there are {', '.join(known)}")
        return Contender(name)
    folder = Path(name).expanduser()
    if folder.is_dir() and name not in recipe_names():
        return Contender(name, RunFolder(folder).read_recipe(), folder, code)
    return Contender(name, load_recipe(name), code=code)


@dataclass(frozen=True)
class Inference:
    """A detector in evaluation mode and the images that it is given; a call makes its detections.

    remark: where it does something else than the case says.
    """

    model: nn.Module
    images: Sequence[Tensor]
    case: ModelCase
    remark: str = ""

    def __call__(self) -> list[dict[str, Tensor]]:
        with torch.inference_mode(), autocast(self.case.device, AMP[self.case.dtype]):
            return self.model(self.images)


def build_inference(contender: Contender, case: ModelCase) -> Inference:
    """Random weights and images are the same every time."""
    case = replace(case, dtype=contender.dtype or case.dtype)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *case.size, generator=generator).to(case.device) for _ in range(case.batch)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, remark = _build(contender, case)
    if case.crowded and contender.has_random_weights and not raise_prior(model):
        remark = remark or "has no prior that could be raised, so its post-processing is not crowded"
    return Inference(model, images, case, remark)


def build_call(contender: Contender, case: ModelCase) -> Callable[[], list[Tensor]]:
    """`build_inference` as the memory meter takes it: made from what can be sent to another process."""
    inference = build_inference(contender, case)
    return lambda: [value for detections in inference() for value in detections.values()]


def _build(contender: Contender, case: ModelCase) -> tuple[nn.Module, str]:
    """The detector on its device, and a remark."""
    if contender.run_dir is not None:
        return load_run(contender.run_dir, device=case.device, parts=own_parts(contender)).for_inference(), ""
    if contender.recipe is not None:
        num_classes = len(SHAPES) if contender.recipe.data.kind == "shapes" else NUM_COCO_CLASSES
        model = build_model(contender.recipe, num_classes, parts=own_parts(contender))
        return fold_norms(model.to(case.device).to(memory_format=torch.channels_last)), ""
    loaded = load_torchvision(contender.origin, weights="none", device=case.device)
    layout = torch.channels_last if case.channels_last else torch.preserve_format
    scales = "scales every image to a size of its own" if loaded.input is None else ""
    return loaded.model.to(memory_format=layout), scales


def own_parts(contender: Contender) -> Parts:
    """The user's own; read from their file again in every process, as classes of a file cannot be sent there."""
    if contender.code is not None:
        return load_parts(contender.code)
    return load_recipe_and_parts(contender.origin)[1] if contender.origin.endswith(".py") else NO_PARTS


def raise_prior(model: nn.Module) -> bool:
    """Let every class of a fresh focal-loss classifier score one half; whether there is such a classifier.

    With random weights, its prior of .01 keeps all scores below the cut, and post-processing has nothing to do.
    """
    biases = [module.bias for module in model.modules() if isinstance(module, nn.Conv2d) and module.bias is not None]
    priors = [bias for bias in biases if torch.allclose(bias, torch.full_like(bias, PRIOR_LOGIT))]
    for bias in priors:
        nn.init.zeros_(bias)
    return bool(priors)


def watched_call(inference: Inference) -> tuple[list[dict[str, Tensor]], str]:
    """Detections, and the name of the first convolution whose outputs overflow or are no numbers, if there is one.

    Detections do not tell: what is not a number scores too little to be among them.
    """
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _given: object, output: Tensor) -> None:
            if not found and not output.isfinite().all():
                found.append(name)

        return hook

    layers = [(name, module) for name, module in inference.model.named_modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(watch(name)) for name, module in layers]
    try:
        detections = inference()
    finally:
        for handle in handles:
            handle.remove()
    return detections, found[0] if found else ""


def count_inference_flops(inference: Inference) -> int:
    """Of a call; 2 a multiply-add. Where the parts of a detector are not known, by watching a call."""
    anatomy = dissect(inference.model)
    if anatomy is None:
        with FlopCounterMode(display=False) as counter:
            inference()
        return counter.get_total_flops()
    divisor = getattr(inference.model, "size_divisor", PADDED_TO)
    height, width = (-(-side // divisor) * divisor for side in inference.case.size)
    return inference.case.batch * sum(count_flops(anatomy.countable, height, width).values())
