"""`aligncli bench train` without the command line, on detectors and images that take no time. No time is asserted."""

import json
import pickle
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from aligncli.analysis.bench import train
from aligncli.analysis.bench.detectors import Contender, find_contender
from aligncli.analysis.bench.memory import MemoryUse
from aligncli.analysis.bench.report import Result
from aligncli.analysis.bench.steps import TrainCase, build_call, build_step, make_batch
from aligncli.analysis.bench.timing import Sample
from aligncli.analysis.bench.train import bench_training
from aligncli.analysis.bench.train_report import TrainReport, TrainResult
from aligncli.analysis.complexity import count_parameters
from aligncli.data.dataset import Categories
from aligncli.engine.checkpoint import write_weights
from aligncli.engine.run_folder import RunFolder
from tests.analysis.test_bench_model import MACHINE
from tests.helpers import tiny_detector, tiny_recipe

CASE = TrainCase(size=(64, 96), batch=2, num_objects=3, num_classes=5)
TORCHVISION = "torchvision:retinanet_resnet50_fpn"
measure_memory = train._measure_memory


@pytest.fixture(autouse=True)
def no_memory_process(monkeypatch):
    """The process that measures memory has tests of its own, and takes seconds to start."""
    monkeypatch.setattr(train, "_measure_memory", lambda them, *_: {one.name: MemoryUse(1000, 500) for one in them})


def tiny(name="retinanet_small"):
    return Contender(name, tiny_recipe(name))


def bench(*contenders, case=CASE):
    return bench_training(contenders, case, runs=3, seconds=60.0, product_side=64)


def test_detectors_take_steps_in_turns_and_are_compared_with_torchvisions():
    report = bench(tiny("aligndet_small"), Contender(TORCHVISION))
    assert report.peer == TORCHVISION
    assert [[sample.round for sample in result.samples] for result in report.results] == [[0, 1, 2]] * 2
    ours, theirs = report.results
    assert report.ratio_to_peer(ours) == ours.seconds.median / theirs.seconds.median
    assert ours.images_per_second == 2 / ours.seconds.median
    assert not ours.remark
    assert not theirs.remark


@pytest.mark.parametrize("name", ["retinanet_small", "aligndet_small", TORCHVISION])
def test_a_step_changes_no_weight_and_the_next_one_computes_the_same(name):
    contender = Contender(name) if name == TORCHVISION else tiny(name)
    step = build_step(contender, CASE)
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    first, second = step(), step()
    assert {key: float(value) for key, value in first.items()} == pytest.approx(
        {key: float(value) for key, value in second.items()}, rel=1e-4
    )
    for parameter, value in zip(step.model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=1e-6)
        assert (parameter.grad is not None) == parameter.requires_grad


def test_torchvisions_freezes_what_the_paper_freezes():
    network = build_step(Contender(TORCHVISION), CASE).model
    body = network.backbone.body
    frozen = {name.split(".")[0] for name, value in body.named_parameters() if not value.requires_grad}
    trained = {name.split(".")[0] for name, value in body.named_parameters() if value.requires_grad}
    assert (frozen, trained) == ({"conv1", "layer1"}, {"layer2", "layer3", "layer4"})
    assert not [name for name, _ in network.named_parameters() if ".bn" in name]  # FrozenBatchNorm2d holds buffers


def test_both_architectures_are_the_same_by_default():
    ours, theirs = (
        count_parameters(build_step(find_contender(name), CASE.small()).model) for name in train.DEFAULT_NAMES
    )
    background = 9 * (1 + 9 * 256)  # torchvision's class for it: a row an anchor
    assert theirs.total - ours.total == theirs.trainable - ours.trainable == background


def test_batches_are_as_asked_and_repeat():
    images, targets = make_batch(CASE)
    assert [image.shape for image in images] == [(3, 64, 96)] * 2
    assert images[0].dtype == torch.uint8
    for target in targets:
        assert target["boxes"].shape == (3, 4)
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
        assert (target["boxes"] >= 0).all()
        assert (target["boxes"][:, 2:] <= torch.tensor([96, 64])).all()
        assert int(target["labels"].max()) < 5
    assert all(torch.equal(one, other) for one, other in zip(images, make_batch(CASE)[0], strict=True))


@pytest.mark.parametrize("num_objects", [0, 200])
def test_any_number_of_objects_trains(num_objects):
    [result] = bench(tiny(), case=replace(CASE, num_objects=num_objects)).results
    assert result.samples, result.note


def test_a_loss_that_is_no_number_is_not_timed(monkeypatch):
    def build(contender, case):
        step = build_step(contender, case)
        if contender.name == "aligndet_small":
            step.model.adm.box_predictor.bias.data.fill_(torch.nan)
        return step

    monkeypatch.setattr(train, "build_step", build)
    wrong, right = bench(tiny("aligndet_small"), tiny()).results
    assert (wrong.is_wrong, wrong.samples) == (True, [])
    assert "is not finite" in wrong.note
    assert right.samples


def test_a_runs_weights_train_on_its_own_classes(tmp_path):
    trained = tiny_detector("retinanet_small", num_classes=2, seed=7)
    RunFolder(tmp_path / "run").create(tiny_recipe("retinanet_small"), Categories(("cat", "dog"), (1, 2)), device="cpu")
    write_weights(trained.state_dict(), tmp_path / "run" / "model.safetensors")
    step = build_step(find_contender(str(tmp_path / "run")), CASE)
    assert step.remark == "has the 2 classes of its run"
    assert all(torch.isfinite(loss) for loss in step().values())
    for parameter, value in zip(step.model.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(parameter, value, rtol=0, atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from Linux's /proc")
def test_memory_is_that_of_the_whole_training():
    used = measure_memory([tiny()], CASE, lambda *_: None)["retinanet_small"]
    parameters = sum(p.numel() * 4 for p in build_step(tiny(), CASE).model.parameters() if p.requires_grad)
    assert used.kept > 2 * parameters  # weights and gradients at least, mostly AdamW's two moments as well
    assert used.peak >= 0


def test_what_measures_memory_can_be_sent_to_another_process():
    call = pickle.loads(pickle.dumps(partial(build_call, tiny(), CASE)))()
    assert all(torch.isfinite(loss) for loss in call())


def result(name, seconds, memory):
    return TrainResult(name, "step", 600, [Sample(0, seconds, seconds)], memory, num_images=4)


def test_ratios_of_memory_are_of_peaks_with_what_is_kept():
    product = Result("product", "product", 600, [Sample(0, 1.0, 1.0)])
    results = [result("ours", 1.0, MemoryUse(30, 40)), result("peer", 2.0, MemoryUse(60, 40))]
    report = TrainReport("train", {}, MACHINE, product, results, peer="peer")
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    first = document["results"][0]
    assert (first["peak_memory"], first["memory_ratio_to_peer"], first["images_per_second"]) == (70, 0.7, 4.0)
    unknown = TrainReport("train", {}, MACHINE, product, [result("peer", 1.0, None)], peer="peer")
    assert unknown.memory_ratio(unknown.results[0]) is None


@pytest.mark.gpu
def test_cuda_takes_steps_in_half_precision():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    case = replace(CASE, device="cuda", dtype="float16")
    report = bench_training([tiny(), Contender(TORCHVISION)], case, runs=3, seconds=10.0, product_side=1024)
    assert all(result.samples for result in report.results), [result.note for result in report.results]
