"""From images to detections: devices and precision, whole data sets, and a user's own files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor, nn

from aligncli.build import NO_PARTS, Parts, build_model
from aligncli.config import EvaluationConfig, InputConfig, Recipe
from aligncli.data.dataset import Categories, DetectionDataset, Target, require_same_categories
from aligncli.data.images import image_tensor, open_image
from aligncli.data.loader import eval_loader
from aligncli.data.transforms import resize_image
from aligncli.engine.checkpoint import load_weights, restore_model
from aligncli.engine.compiling import compile_detector
from aligncli.engine.fitting import FittingForward
from aligncli.engine.reporter import Reporter
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import DataError, DeviceError, first_line
from aligncli.models.detector import Detector
from aligncli.models.folding import fold_norms

DEVICE_KINDS = ("cpu", "cuda", "mps", "xpu")  # of torch's others some hold no values, and nobody has tried the rest
AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class LoadedDetector:
    """A detector, ours or torchvision's, and how it is fed and scored.

    model: images, a list of (3, h, w) in 0..1, to {"boxes", "scores", "labels"} each, with the labels of
    `categories`. input: how images are resized for it; None where it takes them as they are. amp: as in the
    recipe. compiled: by torch.compile, once more for every new number of images. notes: what a user should know,
    one line each.
    """

    name: str
    model: nn.Module
    categories: Categories
    input: InputConfig | None
    evaluation: EvaluationConfig
    amp: str
    compiled: bool = False
    notes: tuple[str, ...] = ()

    def on(self, categories: Categories, *, source: str) -> Self:
        """The detector for a data set with these categories; `source` names it. Raises DataError if it has others."""
        require_same_categories(self.categories, categories, source=source)
        return self

    def tuned(self, *, amp: str | None = None, compiled: bool = False) -> Self:
        """The detector to be run in another precision (None: as it is), or compiled."""
        return replace(self, amp=amp or self.amp, compiled=compiled)

    def for_inference(self) -> nn.Module:
        """The model in evaluation mode, to be called with images and nothing else; ours is a faster copy.

        Raises DeviceError where it is to be compiled and this machine cannot.
        """
        model = fold_norms(self.model) if isinstance(self.model, Detector) else self.model.eval()
        if self.compiled:
            compile_detector(model)
        return model


@dataclass(frozen=True, kw_only=True)
class LoadedRun(LoadedDetector):
    """A detector of a recipe."""

    recipe: Recipe

    @classmethod
    def of(cls, recipe: Recipe, model: nn.Module, categories: Categories) -> Self:
        """Fed and scored as the recipe says."""
        return cls(
            name=recipe.name,
            model=model,
            categories=categories,
            input=recipe.input,
            evaluation=recipe.evaluation,
            amp=recipe.schedule.amp,
            recipe=recipe,
        )


def load_run(run_dir: str | Path, *, device: str = "cpu", parts: Parts = NO_PARTS) -> LoadedRun:
    """The newest weights of a run folder, in evaluation mode; `parts` are the user's own that its recipe names.

    Raises CheckpointError, DeviceError, and RecipeError where a part is missing.
    """
    check_device(device)
    run = RunFolder(Path(run_dir))
    recipe, categories = run.read_recipe(), run.read_categories()
    model = build_model(recipe, num_classes=len(categories.names), parts=parts)
    restore_model(model, load_weights(run.weights_path), source=run.weights_path)
    return LoadedRun.of(recipe, model.to(device).to(memory_format=torch.channels_last).eval(), categories)


@torch.inference_mode()
def detect_dataset(
    detector: LoadedDetector,
    dataset: DetectionDataset,
    *,
    device: str,
    reporter: Reporter,
    rank: int = 0,
    num_ranks: int = 1,
) -> Iterator[tuple[list[dict[str, Tensor]], list[Target]]]:
    """Detections and targets, batch by batch in index order, on the CPU; boxes in network-input pixels.

    Of several processes each takes its batches, see `eval_loader`. A batch that does not fit into memory is run in
    parts; the reporter is told.
    """
    forward = FittingForward(detector.for_inference(), reporter.message)
    done = 0
    loader = eval_loader(
        dataset,
        detector.input,
        batch_size=detector.evaluation.batch_size,
        rank=rank,
        num_ranks=num_ranks,
        pin_memory=torch.device(device).type == "cuda",
    )
    for images, targets in loader:
        with autocast(device, detector.amp):
            outputs = forward([to_unit_range(image, device) for image in images])
        done = min(done + num_ranks * len(images), len(dataset))  # the others are about as far
        reporter.evaluation(done=done, total=len(dataset))
        yield [{name: value.cpu() for name, value in output.items()} for output in outputs], targets


@torch.inference_mode()
def predict_images(
    detector: LoadedDetector,
    paths: Sequence[Path],
    *,
    device: str = "cpu",
    score_threshold: float = 0.3,
    unreadable: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[Path, Image.Image, dict[str, Tensor]]]:
    """Detections on a user's files, one at a time.

    Yields the path, the upright RGB image and {"boxes", "scores", "labels"} with boxes in its pixels.
    A file that cannot be read is told to `unreadable` and left out; without it, its DataError is raised.
    """
    model = detector.for_inference()
    for path in paths:
        try:
            original = open_image(path)
        except DataError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        image, scale = image_tensor(original), (1.0, 1.0)
        if size := detector.input:
            image, scale = resize_image(image, short_side=size.max_short_side, long_side=size.long_side)
        with autocast(device, detector.amp):
            output = model([to_unit_range(image, device)])[0]
        kept = output["scores"] >= score_threshold
        output = {name: value[kept].cpu() for name, value in output.items()}
        output["boxes"] = output["boxes"] / torch.tensor([*scale, *scale])
        yield path, original, output


def to_unit_range(image: Tensor, device: str) -> Tensor:
    """uint8 (3, h, w) to float32 0..1 on the device; it travels there as bytes."""
    return image.to(device, non_blocking=True).float().div_(255.0)


def autocast(device: str, amp: str) -> AbstractContextManager[object]:
    """Mixed precision as the recipe asks: "none", "bf16" or "fp16"."""
    if amp == "none":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=AMP_DTYPES[amp])


def check_device(device: str, *, amp: str = "none") -> None:
    """Raises DeviceError in one line where this machine lacks the device."""
    kind = device.partition(":")[0]
    if kind not in DEVICE_KINDS:
        raise DeviceError(f"device {device!r} is unknown: expected auto, cpu, cuda, cuda:1 or mps")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error).partition(". ")[0]  # torch goes on with what it has instead
        if kind == "mps":
            reason = "this PyTorch finds no GPU of Apple's"
        raise DeviceError(f"device {device!r} cannot be used here ({reason}): try --device cpu") from None
    if amp == "fp16" and kind == "cpu":
        raise DeviceError("--amp fp16 needs a GPU: on the CPU use --amp bf16, or none")
