"""Several processes train as one would on the joined batch, agree on faults, and come back when one is killed."""

import json
import socket
from typing import Any

import pytest
import torch
import torch.multiprocessing

from aligncli.config import ScheduleConfig
from aligncli.data.loader import eval_loader, train_loader
from aligncli.engine.distributed import ALONE, rank_device
from aligncli.engine.evaluate import merge_shares
from aligncli.engine.schedule import check_schedule
from aligncli.environment import Place, launched_place
from aligncli.errors import DataError, DeviceError, RecipeError
from tests.engine import distributed_work as work
from tests.engine.processes import FORKS
from tests.helpers import tiny_detector


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[Any, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("world")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = FORKS.get_start_method()  # of the processes that need not import torch
    torch.multiprocessing.start_processes(work.work, args=(port, str(folder)), nprocs=2, start_method=method)
    return [
        torch.load(folder / f"gradients{rank}.pt") | json.loads((folder / f"rest{rank}.json").read_text())
        for rank in range(2)
    ]


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name].double() - value.double()).norm()
        assert difference <= 1e-6 * value.double().norm(), (name, float(difference))


@pytest.mark.slow
@pytest.mark.parametrize("empty", [False, True], ids=["", "one rank without objects"])
@pytest.mark.parametrize("name", work.RECIPES)
def test_gradients_and_losses_of_two_processes_are_those_of_one_on_the_joined_batch(two, name, empty):
    expected = work.gradients(name, ALONE, second_half_empty=empty)
    assert any(key.startswith("loss.") for key in expected)
    for found in two:
        assert_close(found[name, empty], expected)


@pytest.mark.slow
def test_gradients_that_were_accumulated_are_averaged_once(two):
    expected = work.gradients("aligndet_small", ALONE, second_half_empty=False, accumulate=2)
    for found in two:
        assert_close(found["accumulated"], expected)


@pytest.mark.slow
def test_evaluation_on_two_processes_finds_the_same_detections_in_the_same_order(two):
    metrics, detections = work.evaluation(ALONE)
    assert len(detections) > 7
    assert two[0]["detections"] == json.loads(json.dumps(detections))
    assert two[1]["detections"] == []
    for found in two:
        assert str(found["metrics"]) == str(metrics)  # NaN and all


@pytest.mark.slow
def test_a_fault_of_one_rank_ends_all_and_is_told_once(two):
    assert two[0]["agreements"] == [
        "none: goes on",
        "second: Elsewhere 2",
        "both: ToldFault first",
        "disk: ToldFault last.pt: No space left on device",
        "stopped: Interrupted 143",
    ]
    assert two[1]["agreements"] == [
        "none: goes on",
        "second: ToldFault image 7 is broken",
        "both: Elsewhere 2",
        "disk: Elsewhere 2",
        "stopped: Elsewhere 143",
    ]


@pytest.mark.slow
def test_ranks_agree_on_the_largest_value_and_share_others(two):
    assert [found["largest"] for found in two] == [7, 7]
    assert [found["broadcast"] for found in two] == ["rank 0", "rank 0"]
    assert [found["gather"] for found in two] == [[0, 1], []]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aligndet_small_rpn", "densebox_small", "faster_rcnn_small_fpn", "fsaf_small"])
def test_a_batch_without_objects_leaves_a_gradient_at_every_weight(name):
    model = tiny_detector(name)
    losses = model([torch.rand(3, 64, 64)] * 2, [work.NOTHING] * 2)
    sum(losses.values()).backward()
    assert [key for key, x in model.named_parameters() if x.requires_grad and x.grad is None] == []


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_parts_of_the_ranks_make_the_batches_of_one_process(recipe, num_ranks):
    from aligncli.build import build_dataset

    def batches(rank: int = 0, num_ranks: int = 1):
        loader = train_loader(
            build_dataset(recipe, "train"),
            recipe.input,
            batch_size=4,
            seed=3,
            num_batches=5,
            first_batch=1,
            rank=rank,
            num_ranks=num_ranks,
        )
        return list(loader)

    parts = [batches(rank, num_ranks) for rank in range(num_ranks)]
    for number, (images, targets) in enumerate(batches()):
        assert [x["image_id"] for part in parts for x in part[number][1]] == [x["image_id"] for x in targets]
        together = [image for part in parts for image in part[number][0]]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(together, images, strict=True))


def test_ranks_evaluate_whole_batches_in_turn(recipe):
    from aligncli.build import build_dataset

    dataset = build_dataset(recipe.changed({"data.num_val": 7}), "val")
    found = [
        [[target["image_id"] for target in targets] for _, targets in eval_loader(dataset, None, batch_size=2, **rank)]
        for rank in ({}, {"rank": 0, "num_ranks": 2}, {"rank": 1, "num_ranks": 2})
    ]
    assert found[1] == found[0][0::2]
    assert found[2] == found[0][1::2]


def test_an_image_that_two_ranks_saw_is_refused():
    assert merge_shares([[([1, 2], [{"n": 1}]), ([5], [])], [([3, 4], [{"n": 2}])]]) == [{"n": 1}, {"n": 2}]
    with pytest.raises(DataError, match="image id 2 came up twice"):
        merge_shares([[([1, 2], [])], [([2], [])]])


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "num_ranks", "message"),
    [(4, 1, 3, r"3 processes cannot share 4 images.*schedule.batch_size 4"), (8, 4, 4, r"share 2 .*accumulate 2")],
)
def test_processes_that_cannot_share_a_batch_equally_are_refused(batch_size, accumulate, num_ranks, message):
    schedule = ScheduleConfig(batch_size=batch_size, accumulate=accumulate)
    check_schedule(schedule, num_ranks=2)
    with pytest.raises(RecipeError, match=message):
        check_schedule(schedule, num_ranks=num_ranks)


def test_a_process_takes_the_gpu_of_its_number_or_the_cpu():
    second = Place(rank=5, size=8, local_rank=1, local_size=4, restarts=0)
    assert rank_device("cuda", second) == "cuda:1"
    assert rank_device("cpu", second) == "cpu"
    assert rank_device("cuda:3", Place(rank=0, size=1, local_rank=0, local_size=1, restarts=0)) == "cuda:3"
    with pytest.raises(DeviceError, match="one device for 8 processes"):
        rank_device("cuda:3", second)


def test_a_clusters_own_variables_make_no_world(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert launched_place() is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    assert launched_place() == Place(rank=1, size=2, local_rank=1, local_size=2, restarts=3)


def test_a_world_of_one_needs_no_process_group_and_changes_nothing():
    model = torch.nn.Linear(2, 2)
    assert ALONE.replicate(model) is model
    loss = {"class": torch.tensor(0.1)}
    assert ALONE.mean(loss)["class"] is loss["class"]
    assert ALONE.gather("x") == ["x"]
    with pytest.raises(DataError, match="as it is"), ALONE.together():
        raise DataError("as it is")
    assert not torch.distributed.is_initialized()
