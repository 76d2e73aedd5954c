"""Estimates against what really happens: saved tensors of a real step, time that follows the operations."""

from __future__ import annotations

import pytest
import torch

from aligncli.analysis import estimate
from aligncli.analysis.complexity import count_flops
from aligncli.analysis.estimate import (
    affordable,
    estimate_training,
    forward_flops,
    kept_for_backward,
    noise_batch,
    training_memory,
    typical_size,
)
from aligncli.build import build_model
from aligncli.catalog import load_recipe
from aligncli.engine.inference import to_unit_range
from aligncli.matching import pad_targets
from tests.helpers import tiny_recipe


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("aligndet_small", 1.1),
        ("aligndet_small_conv", 1.1),
        ("retinanet_small", 1.1),
        ("refinedet_small", 1.1),
        ("faster_rcnn_small_fpn", 1.1),
    ],
)
def test_memory_is_what_a_real_step_keeps(name: str, most: float) -> None:
    """Losses and matching come on top in a real step; they are small beside the maps."""
    recipe = load_recipe(name)
    model = build_model(recipe, 6)
    images, targets = noise_batch(4, (128, 128), 6)
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model([to_unit_range(image, "cpu") for image in images], targets)
    real = sum(storage.nbytes() for storage in kept.values())
    assert all(loss.requires_grad for loss in losses.values())
    assert 0.8 * real < kept_for_backward(model, (128, 128), 4, amp="none") < most * real


def test_memory_counts_weights_gradients_and_moments() -> None:
    adam, sgd = load_recipe("aligndet_small"), load_recipe("aligndet_small").changed({"optimizer": {"kind": "sgd"}})
    model = build_model(adam, 6)
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    kept = kept_for_backward(model, (128, 128), 8, amp="none")
    assert training_memory(model, adam, (128, 128), 8) == 4 * parameters + kept
    assert training_memory(model, sgd, (128, 128), 8) == 3 * parameters + kept


def test_half_precision_keeps_less() -> None:
    model = build_model(load_recipe("aligndet_small"), 6)
    half = kept_for_backward(model, (128, 128), 8, amp="bf16")
    assert half < 0.8 * kept_for_backward(model, (128, 128), 8, amp="none")


def test_a_probe_takes_fewer_images_first_then_smaller_ones() -> None:
    def flops(size: tuple[int, int]) -> int:
        return size[0] * size[1]

    assert affordable(flops, 8, (128, 128), 1e9) == (8, (128, 128))
    assert affordable(flops, 8, (128, 128), 2.5 * 128**2) == (2, (128, 128))
    assert affordable(flops, 16, (800, 1088), 300_000.0) == (1, (384, 512))
    assert affordable(flops, 16, (800, 1088), 1.0) == (1, (128, 256))


def test_sizes_are_those_that_the_network_sees() -> None:
    assert typical_size(load_recipe("aligndet_small")) == (128, 128)
    assert typical_size(load_recipe("aligndet_r50")) == (800, 1088)  # 800 x 1067 in multiples of 32
    assert typical_size(load_recipe("aligndet_x101")) == (736, 960)  # jitter 640 to 800
    assert estimate.largest_size(load_recipe("aligndet_x101")) == (800, 1344)


def test_noise_is_a_sound_batch() -> None:
    images, targets = noise_batch(2, (96, 64), 3)
    truth = pad_targets(targets, torch.device("cpu"))
    assert [tuple(image.shape) for image in images] == [(3, 96, 64)] * 2
    assert (truth.boxes[..., 2:] > truth.boxes[..., :2]).all()
    assert (truth.boxes[..., 2:] <= torch.tensor([64, 96])).all()


def test_time_and_operations_follow_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_a_step", lambda *_, **__: 2.0)
    recipe = tiny_recipe("aligndet_small", {"schedule.iterations": 10})
    short, long = (
        estimate_training(recipe.changed({"schedule.iterations": count}), device="cpu") for count in (10, 30)
    )
    assert short.seconds == 20.0  # tiny: the whole batch is timed
    assert long.seconds == 60.0
    assert long.flops == 3 * short.flops > 0
    assert long.memory == short.memory


def test_a_large_network_is_timed_on_a_part_and_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def timed(_: object, __: object, batch: estimate.Probe, **___: object) -> float:
        asked.append(len(batch[0]))
        return 1.0

    monkeypatch.setattr(estimate, "seconds_a_step", timed)
    recipe = tiny_recipe("aligndet_small", {"schedule.iterations": 1, "schedule.batch_size": 8})
    whole = estimate_training(recipe, device="cpu")
    monkeypatch.setattr(estimate, "PROBE_FLOPS", {"cpu": whole.flops / estimate.BACKWARD_FACTOR / 4})
    part = estimate_training(recipe, device="cpu")
    assert asked == [8, 2]
    assert part.seconds == pytest.approx(4.0)


@pytest.mark.parametrize("name", ["retinanet_small", "refinedet_small", "fcos_small"])
def test_what_is_counted_on_a_part_is_what_is_counted_of_the_whole(name: str) -> None:
    detector = build_model(load_recipe(name), 6)
    whole = 2 * sum(count_flops(detector, 128, 128, training=True).values())
    assert forward_flops(detector, noise_batch(2, (128, 128), 6), device="cpu") == whole


def test_the_dpm_s_scores_are_counted_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "seconds_a_step", lambda *_, **__: 1.0)
    recipe = load_recipe("aligndet_small").changed({"schedule.iterations": 1, "weights": "none"})
    made = estimate_training(recipe, device="cpu")
    detector = build_model(recipe, 6)
    batch = noise_batch(recipe.schedule.batch_size, typical_size(recipe), 6)
    assert made.flops == pytest.approx(estimate.BACKWARD_FACTOR * forward_flops(detector, batch, device="cpu"))
    detected = sum(count_flops(detector, *typical_size(recipe)).values())
    assert made.flops > 1.05 * estimate.BACKWARD_FACTOR * recipe.schedule.batch_size * detected


def test_a_two_stage_detector_is_counted_with_the_samples_that_it_has() -> None:
    """Of three recipes that differ in samples alone; a part that has fewer to offer is counted with those."""
    recipe = load_recipe("faster_rcnn_small_fpn")
    counts = {}
    for samples in (16, 64, 4096):
        detector = build_model(recipe.changed({"model.roi_head.num_samples": samples}), 6)
        whole = sum(count_flops(detector, 128, 128, training=True).values())
        counts[samples] = whole, forward_flops(detector, noise_batch(1, (128, 128), 6), device="cpu")
    assert counts[16][0] < counts[64][0] < counts[4096][0]
    assert counts[16][1] == counts[16][0]
    assert counts[4096][1] < counts[4096][0] / 2
