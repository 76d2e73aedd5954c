"""What a training will take, before it is run: time, operations and memory, derived from its own network.

Time: real training steps of the recipe's network are timed on this device, on as much of a batch as PROBE_FLOPS
allow (fewer images first, then smaller ones), and scaled by the operations of the whole batch over those of the part,
which are counted as it runs: a two-stage detector finds fewer boxes to sample in a small image. A small recipe is
timed in full. Loading images, evaluating and starting up are not in it.
Memory: weights, gradients, the optimizer's moments, and everything that the backward pass keeps of the largest
batch, counted on fake tensors: shapes without values. Temporary buffers and the framework itself are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from aligncli.analysis.complexity import count_flops
from aligncli.build import NO_PARTS, Parts, build_model
from aligncli.config import AdamWConfig, Recipe, ShapesConfig
from aligncli.data.dataset import Target
from aligncli.engine.inference import autocast, to_unit_range
from aligncli.engine.train import Trainer
from aligncli.models.detector import Detector

PROBE_FLOPS = {"cpu": 1e11, "cuda": 1e13}  # of a forward pass: about a second of training steps
TIMED_STEPS = 3  # the fastest counts: other work on the machine only ever adds
BACKWARD_FACTOR = 3  # a training step is a forward pass and, for inputs and weights, two more of its size
COCO_CLASSES = 80
ASPECT = 4 / 3  # of a photograph
STEP = 128  # pixels: a probe's sides are its multiples, so every level has cells
Probe = tuple[list[Tensor], list[Target]]  # images (3, H, W) uint8


@dataclass(frozen=True)
class Estimate:
    """Of a whole training: FLOPs, seconds of its steps on this device, and bytes at a step."""

    flops: float
    seconds: float
    memory: int


@dataclass(frozen=True)
class Iteration:
    """One optimizer step: FLOPs of its forward passes, and seconds."""

    flops: float
    seconds: float


def estimate_training(recipe: Recipe, *, device: str, parts: Parts = NO_PARTS) -> Estimate:
    """See the module. `device` and torch's number of threads are what the training would run on."""
    detector = build_detector(recipe, parts=parts)
    memory = training_memory(detector, recipe, largest_size(recipe), images_a_pass(recipe))
    step = time_iteration(detector, recipe, device=device)
    iterations = recipe.schedule.iterations
    return Estimate(flops=BACKWARD_FACTOR * step.flops * iterations, seconds=step.seconds * iterations, memory=memory)


def build_detector(recipe: Recipe, *, parts: Parts = NO_PARTS) -> Detector:
    """With random weights, without reading data."""
    return build_model(recipe.changed({"weights": "none"}), num_classes(recipe), parts=parts)


def num_classes(recipe: Recipe) -> int:
    """The embedded data's, else COCO's, whatever a user's own has: it changes the predictors alone."""
    return 6 if isinstance(recipe.data, ShapesConfig) else COCO_CLASSES


def images_a_pass(recipe: Recipe) -> int:
    """Of a batch, those that go through the network at once."""
    return recipe.schedule.batch_size // recipe.schedule.accumulate


def count_iteration(detector: Detector, recipe: Recipe) -> int:
    """FLOPs of an optimizer step's forward passes on images of typical size, losses left out; nothing is computed."""
    return recipe.schedule.batch_size * _count_image(detector, typical_size(recipe))


def _count_image(detector: Detector, size: tuple[int, int]) -> int:
    return sum(count_flops(detector, *size, training=True).values())


def time_iteration(detector: Detector, recipe: Recipe, *, device: str, steps: int = TIMED_STEPS) -> Iteration:
    """Of images of typical size; the fastest of so many `steps` counts. Leaves the detector on the device, trained."""

    @cache
    def flops(size: tuple[int, int]) -> int:
        return _count_image(detector, size)

    size, batch = typical_size(recipe), images_a_pass(recipe)
    images, probed = affordable(flops, batch, size, PROBE_FLOPS[torch.device(device).type])
    probe = noise_batch(images, probed, num_classes(recipe))
    seconds = seconds_a_step(detector, recipe, probe, device=device, steps=steps)
    timed = forward_flops(detector, probe, device=device)
    # More than is counted of the detector is what the losses alone read, such as scores of the DPM: every image has it.
    # Less is samples that a part has not.
    whole = flops(size) * batch * max(1.0, timed / (flops(probed) * images))
    accumulate = recipe.schedule.accumulate
    return Iteration(flops=whole * accumulate, seconds=seconds * whole / timed * accumulate)


def typical_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of the network's input, pixels: of `shapes` as it is, else of a 4:3 photograph."""
    sides = recipe.input
    short = (sides.min_short_side + sides.max_short_side) / 2
    long = short if isinstance(recipe.data, ShapesConfig) else min(short * ASPECT, sides.long_side)
    return padded(short, sides.size_divisor), padded(long, sides.size_divisor)


def largest_size(recipe: Recipe) -> tuple[int, int]:
    """The same of the longest image of the largest short side."""
    sides = recipe.input
    short = sides.max_short_side
    long = short if isinstance(recipe.data, ShapesConfig) else sides.long_side
    return padded(short, sides.size_divisor), padded(long, sides.size_divisor)


def padded(side: float, divisor: int) -> int:
    """The next multiple of `divisor`, as the detector pads."""
    return -int(-side // divisor) * divisor


def affordable(
    flops: Callable[[tuple[int, int]], int], images: int, size: tuple[int, int], budget: float
) -> tuple[int, tuple[int, int]]:
    """As many images of `size`, or one of a smaller size, as a forward pass of `budget` FLOPs allows."""
    while images > 1 and images * flops(size) > budget:
        images //= 2
    while min(size) >= 2 * STEP and flops(size) > budget:
        height, width = (max(STEP, side // 2 // STEP * STEP) for side in size)
        size = (height, width)
    return images, size


def seconds_a_step(detector: Detector, recipe: Recipe, batch: Probe, *, device: str, steps: int) -> float:
    """Of the fastest of so many training steps, after one that warms up."""
    changes = {"schedule.accumulate": 1, "schedule.iterations": 1 + steps}  # a scheduler refuses any more
    trainer = Trainer(recipe.changed(changes), detector, device=device)
    fastest = float("inf")
    for _ in range(1 + steps):
        started = time.perf_counter()
        losses = trainer.step(repeat(batch))
        float(sum(losses.values(), torch.zeros(())))  # waits for the device
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def forward_flops(detector: Detector, batch: Probe, *, device: str) -> int:
    """Of a training step's forward pass on that very batch; `detector` is on the device."""
    images, targets = batch
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.train()([to_unit_range(image, device) for image in images], targets)
    return counter.get_total_flops()


def noise_batch(images: int, size: tuple[int, int], num_classes: int) -> Probe:
    """Images of noise with 6 boxes each, the same every time."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    pixels = [torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator) for _ in range(images)]
    corners = torch.rand(images, 6, 4, generator=generator)
    low = corners[..., :2] * 0.6
    boxes = torch.cat((low, low + 0.1 + corners[..., 2:] * 0.3), dim=-1) * torch.tensor((width, height)).repeat(2)
    labels = torch.randint(num_classes, (images, 6), generator=generator)
    return pixels, [
        Target(
            boxes=boxes[i],
            labels=labels[i],
            crowd=torch.zeros(6, dtype=torch.bool),
            image_id=i,
            size=size,
            scale=(1.0, 1.0),
        )
        for i in range(images)
    ]


def training_memory(detector: Detector, recipe: Recipe, size: tuple[int, int], images: int) -> int:
    """Bytes of weights, gradients, moments, and of what the backward pass keeps of `images` images of `size`."""
    module = cast("nn.Module", detector)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    trained = sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)
    moments = 2 if isinstance(recipe.optimizer, AdamWConfig) else 1
    return weights + (1 + moments) * trained + kept_for_backward(module, size, images, amp=recipe.schedule.amp)


def kept_for_backward(module: nn.Module, size: tuple[int, int], images: int, *, amp: str) -> int:
    """Bytes of every tensor that autograd saves in a forward pass, each storage once, parameters left out."""
    kept: dict[int, Any] = {}  # holds the storages, or a freed one's address could come again

    def keep(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):  # a parameter
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    module.train()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        autocast("cpu", amp),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        cast("Any", module).raw_forward(torch.empty(images, 3, *size))
    return sum(storage.nbytes() for storage in kept.values())
