"""What two gloo processes do together in test_distributed.py, and what one does alone for comparison."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aligncli.build import build_dataset
from aligncli.engine.distributed import World, join_world, unsynchronized
from aligncli.engine.evaluate import evaluate_detector
from aligncli.engine.faults import Elsewhere, ToldFault
from aligncli.engine.inference import LoadedRun
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.reporter import SilentReporter
from aligncli.environment import Place
from aligncli.errors import DataError
from tests.engine.conftest import SECONDS
from tests.helpers import random_batch, tiny_detector, tiny_recipe

# One for each place that counts positives; none draws samples, and no norm looks at the batch
RECIPES = ("aligndet_small", "fcos_small", "reppoints_small", "guided_anchoring_small", "refinedet_small")
FIXED = {"model.backbone.frozen_norm": True}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def shared_batch(*, second_half_empty: bool) -> tuple[list[Tensor], list[Any]]:
    """Four images; the first half have fewer objects than the others, or all of them."""
    images, targets = random_batch(4, size=64)
    targets = [{name: value[: index + 1] for name, value in target.items()} for index, target in enumerate(targets)]
    if second_half_empty:
        targets[2:] = [NOTHING, NOTHING]
    return [image.double() for image in images], targets


def gradients(name: str, world: World, *, second_half_empty: bool, accumulate: int = 1) -> dict[str, Tensor]:
    """Of this rank's part of the batch after they were averaged, in float64; losses as "loss.NAME"."""
    images, targets = shared_batch(second_half_empty=second_half_empty)
    model = tiny_detector(name, changes=FIXED, seed=world.rank).double()  # rank 0's weights become everyone's
    replica = world.replicate(model)
    totals: dict[str, Tensor] = {}
    for part in range(accumulate):
        size = len(images) // accumulate // world.size
        first = (part * world.size + world.rank) * size
        with unsynchronized(replica) if part + 1 < accumulate else torch.enable_grad():
            losses = replica(images[first : first + size], targets[first : first + size])
            (sum(losses.values()) / accumulate).backward()
        for key, loss in world.mean(losses).items():
            totals[f"loss.{key}"] = totals.get(f"loss.{key}", 0.0) + loss.detach().cpu()
    return totals | {key: x.grad.clone() for key, x in model.named_parameters() if x.grad is not None}


def evaluation(world: World) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Metrics and detections of an untrained detector on seven images in batches of two."""
    changes = SECONDS | {"data.num_val": 7, "evaluation.batch_size": 2}
    recipe = tiny_recipe("aligndet_small", changes)
    dataset = build_dataset(recipe, "val")
    model = tiny_detector("aligndet_small", changes=changes, seed=world.rank, num_classes=len(dataset.categories.names))
    for key, parameter in model.named_parameters():
        if key.endswith("class_predictor.bias"):
            torch.nn.init.zeros_(parameter)  # or no score would reach the threshold
    world.replicate(model)
    found = evaluate_detector(
        LoadedRun.of(recipe, model, dataset.categories), dataset, device="cpu", reporter=SilentReporter(), world=world
    )
    return found.metrics, found.detections


def agreements(world: World) -> list[str]:
    """What a rank sees of faults that it or the other one has."""
    seen = []
    cases = {
        "none": {},
        "second": {1: DataError("image 7 is broken")},
        "both": {0: DataError("first"), 1: DataError("second")},
        "disk": {0: OSError(28, "No space left on device", "last.pt")},
        "stopped": {0: Interrupted(Path("run"), 3, 15), 1: Interrupted(Path("run"), 3, 15)},
    }
    for name, faults in cases.items():
        try:
            with world.together():
                if world.rank in faults:
                    raise faults[world.rank]
            seen.append(f"{name}: goes on")
        except (ToldFault, Elsewhere, Interrupted) as error:
            seen.append(f"{name}: {type(error).__name__} {getattr(error, 'exit_code', error)}")
    return seen


def work(rank: int, port: int, folder: str) -> None:
    """Everything above in a world of two; what each rank found is left in `folder`."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    with join_world(Place(rank=rank, size=2, local_rank=rank, local_size=2, restarts=0), "cpu") as world:
        found: dict[Any, Any] = {
            (name, empty): gradients(name, world, second_half_empty=empty)
            for name in RECIPES
            for empty in (False, True)
        }
        found["accumulated"] = gradients("aligndet_small", world, second_half_empty=False, accumulate=2)
        torch.save(found, Path(folder) / f"gradients{rank}.pt")
        metrics, detections = evaluation(world)
        rest = {
            "metrics": metrics,
            "detections": detections,
            "agreements": agreements(world),
            "largest": world.largest(7 * rank),
            "broadcast": world.broadcast(f"rank {rank}"),
            "gather": world.gather(rank),
        }
        (Path(folder) / f"rest{rank}.json").write_text(json.dumps(rest))
