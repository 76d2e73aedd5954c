"""The contenders of `aligncli bench train`: one optimizer step, from images and boxes to changed weights.

RECIPE              ours, as `aligncli train` takes it, with random weights
RUN                 ours, a run folder's weights
torchvision:NAME    torchvision's, random weights, in the plain loop that its users write; SGD as in the paper
All get the same images and boxes, and the same parts are frozen: stem, conv2_x and batch norms (section 5.1).
The learning rate is next to nothing, so that every step computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torchvision.models import get_model

from aligncli.analysis.bench.detectors import AMP, Contender, own_parts
from aligncli.build import build_model
from aligncli.config import Recipe, SGDConfig
from aligncli.data.dataset import Target
from aligncli.engine.inference import autocast, load_run, to_unit_range
from aligncli.engine.torchvision_models import PREFIX, freeze_norms, take_out_resize
from aligncli.engine.trainer import Trainer

STILL_RATE = 1e-12  # lost in the rounding of a float32 weight; far from denormal in a bias of zero
ENDLESS = 1_000_000  # iterations
LARGEST_SHARE = 0.5  # of an image's side, by an object's
FROZEN_STAGES = ("conv1", "bn1", "layer1")  # torchvision's names
Losses = Mapping[str, Tensor]


@dataclass(frozen=True)
class TrainCase:
    """Everything that decides what is computed but the detector.

    size: height and width in pixels. num_objects: ground truths an image. dtype: under autocast, if it is not
    float32. channels_last: lay out torchvision's detectors so, too; ours always are. tf32: on CUDA, what float32 is.
    """

    size: tuple[int, int] = (512, 512)
    batch: int = 2
    num_objects: int = 7  # COCO's mean is 7.3
    num_classes: int = 80
    dtype: str = "float32"
    device: str = "cpu"
    channels_last: bool = False
    tf32: bool = False

    def small(self) -> TrainCase:
        """One small image, to load code with."""
        return replace(self, size=(64, 64), batch=1, num_objects=1)


@dataclass(frozen=True)
class Step:
    """A training that stands still; a call is a step, and returns its losses.

    remark: where it does something else than the case says.
    """

    model: nn.Module
    take: Callable[[], Losses]
    remark: str = ""

    def __call__(self) -> Losses:
        return self.take()


def build_step(contender: Contender, case: TrainCase) -> Step:
    """Random weights and data are the same every time."""
    case = replace(case, dtype=contender.dtype or case.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if contender.recipe is None:
            return _torchvision(contender.origin, case)
        return _ours(contender, contender.recipe, case)


def build_call(contender: Contender, case: TrainCase) -> Callable[[], list[Tensor]]:
    """For the memory meter: the first call builds, too, so that what it keeps is the whole training between steps."""
    steps: list[Step] = []

    def call() -> list[Tensor]:
        if not steps:
            steps.append(build_step(contender, case))
        return list(steps[0]().values())

    return call


def make_batch(case: TrainCase) -> tuple[list[Tensor], list[Target]]:
    """uint8 images (3, h, w) of noise, and targets, on the CPU, as a loader gives them."""
    generator = torch.Generator().manual_seed(0)
    height, width = case.size
    limits = torch.tensor([width, height])
    images, targets = [], []
    for number in range(case.batch):
        images.append(torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator))
        sides = (torch.rand(case.num_objects, 2, generator=generator) * limits * LARGEST_SHARE).clamp_min(1.0)
        corners = torch.rand(case.num_objects, 2, generator=generator) * (limits - sides)
        targets.append(
            Target(
                boxes=torch.cat([corners, corners + sides], dim=1),
                labels=torch.randint(case.num_classes, (case.num_objects,), generator=generator),
                crowd=torch.zeros(case.num_objects, dtype=torch.bool),
                image_id=number + 1,
                size=case.size,
                scale=(1.0, 1.0),
            )
        )
    return images, targets


def _ours(contender: Contender, recipe: Recipe, case: TrainCase) -> Step:
    recipe = recipe.changed(
        {
            "schedule.batch_size": case.batch,
            "schedule.accumulate": 1,
            "schedule.iterations": ENDLESS,
            "schedule.amp": AMP[case.dtype],
            "optimizer.lr": STILL_RATE,
        }
    )
    remark = ""
    if contender.run_dir is not None:
        loaded = load_run(contender.run_dir, device=case.device, parts=own_parts(contender))
        model, num_classes = loaded.model, len(loaded.categories)
        case = replace(case, num_classes=num_classes)
        remark = f"has the {num_classes} classes of its run"
    else:
        model = build_model(recipe, case.num_classes, parts=own_parts(contender))
    trainer = Trainer(recipe, model, device=case.device)
    batch = make_batch(case)
    return Step(trainer.model, lambda: trainer.step(iter([batch])), remark)


def _torchvision(name: str, case: TrainCase) -> Step:
    """Its convention: labels from 1, as 0 is the background."""
    network = get_model(
        name.removeprefix(PREFIX), weights=None, weights_backbone=None, num_classes=case.num_classes + 1
    )
    freeze_norms(network.get_submodule("backbone"), epsilon=1e-5)
    scales = "scales every image to a size of its own" if take_out_resize(network) is None else ""
    unfrozen = "" if _freeze_stages(network) else "has no ResNet: all its layers train"
    layout = torch.channels_last if case.channels_last else torch.preserve_format
    loop = PlainLoop(network.to(case.device).to(memory_format=layout), case)
    return Step(network, loop, scales or unfrozen)


def _freeze_stages(network: nn.Module) -> bool:
    """Stem and conv2_x of a ResNet do not train; whether it is one."""
    backbone = network.get_submodule("backbone")
    children = dict(getattr(backbone, "body", backbone).named_children())
    is_resnet = children.keys() >= set(FROZEN_STAGES)
    for name in FROZEN_STAGES if is_resnet else ():
        children[name].requires_grad_(False)
    return is_resnet


class PlainLoop:
    """The body of the loop around a torchvision detector, as its own references have it."""

    def __init__(self, network: nn.Module, case: TrainCase) -> None:
        self._network = network.train()
        self._case = case
        images, targets = make_batch(case)
        self._images = [to_unit_range(image, "cpu") for image in images]
        self._targets = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]
        solver = SGDConfig()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = SGD(trained, lr=STILL_RATE, momentum=solver.momentum, weight_decay=solver.weight_decay)
        self._scaler = torch.amp.GradScaler(torch.device(case.device).type, enabled=case.dtype == "float16")

    def __call__(self) -> Losses:
        device = self._case.device
        images = [image.to(device) for image in self._images]
        targets = [{name: value.to(device) for name, value in target.items()} for target in self._targets]
        self._optimizer.zero_grad()
        with autocast(device, AMP[self._case.dtype]):
            losses: dict[str, Tensor] = self._network(images, targets)
            total = torch.stack(list(losses.values())).sum()
        self._scaler.scale(total).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {name: loss.detach() for name, loss in losses.items()}
