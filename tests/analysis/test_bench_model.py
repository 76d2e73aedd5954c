"""`aligncli bench model` without the command line, on detectors and images that take no time. No time is asserted."""

import io
import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aligncli.analysis.bench import detectors, model
from aligncli.analysis.bench.anatomy import PARTS, SplitTimer, dissect
from aligncli.analysis.bench.detectors import (
    Contender,
    Inference,
    ModelCase,
    build_call,
    build_inference,
    count_inference_flops,
    find_contender,
)
from aligncli.analysis.bench.machine import Machine
from aligncli.analysis.bench.memory import MemoryUse
from aligncli.analysis.bench.model import bench_models, choose_peer, default_names
from aligncli.analysis.bench.model_plot import COLOURS, WHOLE, bar_parts, label, milliseconds, plot_models
from aligncli.analysis.bench.model_report import ModelReport, ModelResult
from aligncli.analysis.bench.report import Result
from aligncli.analysis.bench.table6 import PaperSpeeds, paper_speeds
from aligncli.analysis.bench.timing import Sample
from aligncli.catalog import load_recipe
from aligncli.data.dataset import Categories
from aligncli.engine.checkpoint import write_weights
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import UserError
from aligncli.models.folding import fold_norms
from tests.helpers import tiny_detector, tiny_recipe

CASE = ModelCase(size=(64, 96))
TORCHVISION = "torchvision:retinanet_resnet50_fpn"


@pytest.fixture(autouse=True)
def no_memory_process(monkeypatch):
    """The process that measures memory has tests of its own, and takes seconds to start."""
    monkeypatch.setattr(model, "_measure_memory", lambda them, *_: {one.name: MemoryUse(1000, 0) for one in them})


def tiny(name="retinanet_small", **changes):
    return Contender(name, tiny_recipe(name, changes))


def bench(contenders, case=CASE, **options):
    return bench_models(contenders, case, **{"runs": 3, "seconds": 60.0, "product_side": 64} | options)


class Logged(nn.Module):
    """Detects nothing and says when it is called."""

    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log

    def forward(self, images):
        self.log.append(self.name)
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)} for _ in images]


class Ticking:
    """A clock that stands still but for the modules that are told how long they take."""

    def __init__(self, durations):
        self.now = 10.0
        for module, seconds in durations.items():
            module.register_forward_hook(partial(self._work, seconds))

    def _work(self, seconds, *_):
        self.now += seconds

    def moment(self):
        return self.now

    def seconds(self, first, last):
        return last - first


@pytest.fixture
def logged(monkeypatch):
    """Contenders that only log their calls."""
    log = []

    def build(contender, case):
        return Inference(Logged(contender.name, log), [torch.zeros(3, *case.size)], case)

    monkeypatch.setattr(model, "build_inference", build)
    return log


def test_detectors_take_turns(logged):
    report = bench([Contender(name) for name in "ABC"], runs=4)
    assert "".join(logged).endswith("ABC" * 4)
    assert [[sample.round for sample in result.samples] for result in report.results] == [[0, 1, 2, 3]] * 3


def test_every_detector_runs_before_any_is_timed(logged):
    bench([Contender(name) for name in "AB"], runs=1)
    assert "".join(logged) == "AA" + "BB" + "AB"  # to be warm, and to count operations; then timed


def test_progress_names_its_stages():
    told = []
    bench([tiny()], progress=lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["preparing", "timing", "splitting"]
    assert all(done <= total for _, done, total in told)


@pytest.mark.parametrize("name", ["retinanet_small", "aligndet_small"])
def test_the_parts_of_ours_are_measured_where_they_begin_and_end(name):
    detector = tiny_detector(name).eval()
    heads = detector.adm if name == "aligndet_small" else detector.head.branches.class_predictor
    clock = Ticking({detector.backbone: 2.0, detector.neck: 3.0, detector.postprocess: 5.0})
    repeated = Ticking({heads: 0.25})
    timer = SplitTimer(lambda: detector([torch.rand(3, 64, 64)]), dissect(detector).boundaries, clock)
    timer()
    assert timer.splits == [{"input": 0.0, "backbone": 2.0, "neck": 3.0, "heads": 0.0, "post-processing": 5.0}]
    timer.clock = repeated
    timer()
    calls = 1 if name == "aligndet_small" else len(detector.strides)
    assert timer.splits[1] == dict.fromkeys(PARTS, 0.0) | {"heads": 0.25 * calls}


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def test_the_parts_of_torchvisions_are_the_same_ones(name):
    inference = build_inference(Contender(f"torchvision:{name}"), CASE)
    network = inference.model.network
    clock = Ticking(
        {
            network.transform: 1.0,
            network.backbone.body: 2.0,
            network.backbone.fpn: 3.0,
            network.head: 4.0,
            inference.model: 5.0,
        }
    )
    timer = SplitTimer(inference, dissect(inference.model).boundaries, clock)
    timer()
    assert timer.splits == [{"input": 1.0, "backbone": 2.0, "neck": 3.0, "heads": 4.0, "post-processing": 5.0}]
    assert sum(timer.splits[0].values()) == clock.now - 10.0


def test_parts_fill_the_whole_call():
    inference = build_inference(tiny("aligndet_small"), CASE)
    clock = model.make_clock("cpu")
    timer = SplitTimer(inference, dissect(inference.model).boundaries, clock)
    first = clock.moment()
    timer()
    whole = clock.seconds(first, clock.moment())
    [split] = timer.splits
    assert list(split) == list(PARTS)
    assert all(seconds > 0 for seconds in split.values())
    assert sum(split.values()) <= whole


def test_hooks_are_gone_afterwards_and_change_nothing():
    inference = build_inference(tiny("aligndet_small"), replace(CASE, crowded=True))
    before = inference()
    timer = SplitTimer(inference, dissect(inference.model).boundaries, model.make_clock("cpu"))
    during = timer()
    for one, other in zip(before, during, strict=True):
        assert len(one["boxes"]) == 100
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in inference.model.modules())


def test_a_two_stage_detector_is_timed_and_not_split():
    name = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    [result] = bench([find_contender(name)], runs=1).results
    assert len(result.samples) == 1
    assert result.split == {}
    assert result.flops > 0


def test_torchvision_gets_the_pixels_as_they_are():
    inference = build_inference(Contender(TORCHVISION), ModelCase(size=(70, 130)))
    shapes = []
    inference.model.network.backbone.body.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    inference()
    assert shapes == [(1, 3, 96, 160)]  # padded to multiples of 32, as ours


def test_what_scales_images_itself_is_marked():
    inference = build_inference(Contender("torchvision:ssdlite320_mobilenet_v3_large"), CASE)
    assert inference.remark == "scales every image to a size of its own"


@pytest.mark.parametrize("name", ["retinanet_small", "aligndet_small", TORCHVISION])
def test_flops_are_those_of_the_call(name):
    inference = build_inference(find_contender(name), ModelCase(size=(70, 96), batch=2))
    with FlopCounterMode(display=False) as counter:
        inference()
    assert count_inference_flops(inference) == counter.get_total_flops() > 0


def test_random_weights_detect_nothing_unless_crowded():
    sparse, crowded = (
        bench([tiny(), Contender("torchvision:fcos_resnet50_fpn")], replace(CASE, crowded=crowded), runs=1)
        for crowded in (False, True)
    )
    assert [result.num_detections for result in sparse.results] == [0, 0]
    assert all(result.num_detections > 50 for result in crowded.results)
    assert all(result.random_weights and not result.remark for result in crowded.results)


def test_a_detector_without_a_prior_says_that_it_is_not_crowded():
    inference = build_inference(
        Contender("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"), replace(CASE, crowded=True)
    )
    assert "no prior" in inference.remark


def test_weights_and_images_repeat_and_torchs_own_stream_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (build_inference(tiny(), CASE) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.images[0], second.images[0])
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_bfloat16_is_autocast():
    inference = build_inference(tiny(), replace(CASE, dtype="bfloat16"))
    types = []
    inference.model.neck.register_forward_hook(lambda _, __, maps: types.append(maps[0].dtype))
    inference()
    assert types == [torch.bfloat16]


def test_a_run_brings_its_weights(tmp_path):
    recipe = tiny_recipe("retinanet_small")
    trained = tiny_detector("retinanet_small", num_classes=2, seed=7)
    RunFolder(tmp_path / "run").create(recipe, Categories(("cat", "dog"), (1, 2)), device="cpu")
    write_weights(trained.state_dict(), tmp_path / "run" / "model.safetensors")
    contender = find_contender(str(tmp_path / "run"))
    assert not contender.has_random_weights
    assert contender.is_retinanet
    built = build_inference(contender, replace(CASE, crowded=True)).model.state_dict()
    folded = fold_norms(trained).state_dict()
    assert built.keys() == folded.keys()
    assert all(torch.equal(value, built[key]) for key, value in folded.items())


def test_a_packaged_recipe_goes_before_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "retinanet_small").mkdir()
    assert find_contender("retinanet_small").run_dir is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_detector_may_have_a_type_of_its_own(dtype):
    types = []
    inference = build_inference(find_contender(f"retinanet_small@{dtype}"), replace(CASE, dtype="bfloat16"))
    convolution = next(module for module in inference.model.modules() if isinstance(module, nn.Conv2d))
    convolution.register_forward_hook(lambda _module, _given, output: types.append(output.dtype))
    inference()
    assert types == [getattr(torch, dtype)]


def test_of_the_product_is_told_what_computes_in_its_type():
    own, plain = bench([find_contender("retinanet_small@bfloat16"), tiny()], runs=1).to_json()["results"]
    assert (own["name"], own["dtype"], own["share_of_product"]) == ("retinanet_small@bfloat16", "bfloat16", None)
    assert plain["share_of_product"] > 0
    assert plain["dtype"] == ""


def test_a_folder_whose_name_ends_like_a_type_is_a_folder(tmp_path):
    (tmp_path / "run@bfloat16").mkdir()
    with pytest.raises(UserError, match="run@bfloat16"):  # which holds no run
        find_contender(str(tmp_path / "run@bfloat16"))


def test_a_recipe_file_brings_its_own_parts(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from aligncli.build.parts import build_backbone\n"
        "from aligncli.catalog import load_recipe\n"
        "from aligncli.config import TinyConfig\n"
        "PARTS = {'mine': lambda: build_backbone(TinyConfig(), {})}\n"
        "RECIPE = load_recipe('retinanet_small').changed({'model.backbone': {'kind': 'custom', 'name': 'mine'}})\n"
    )
    [result] = bench([find_contender(str(file))], runs=1).results
    assert result.samples, result.note


@pytest.mark.parametrize("name", ["retinanet_smal", "torchvision:yolo", "torchvision:", "nowhere/run"])
def test_an_unknown_name_is_a_users_error(name):
    with pytest.raises(UserError):
        find_contender(name)


def test_what_measures_memory_can_be_sent_to_another_process():
    build = pickle.loads(pickle.dumps(partial(build_call, tiny("aligndet_small"), replace(CASE, crowded=True))))
    boxes, scores, labels = build()()
    assert len(boxes) == len(scores) == len(labels) == 100


@pytest.mark.parametrize("error", [UserError("torchvision has lost it"), RuntimeError("no kernel\nmore")])
def test_a_failing_detector_is_reported_and_the_others_are_timed(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(detectors, "load_torchvision", fail)
    failed, timed = bench([Contender(TORCHVISION), tiny()]).results
    assert not failed.samples
    assert failed.note in ("torchvision has lost it", "RuntimeError: no kernel")
    assert len(timed.samples) == 3
    assert not timed.note


NOT_FINITE = "the outputs of its layer adm.box_predictor are not finite"


def test_a_detector_that_answers_nonsense_is_not_timed(monkeypatch):
    def build(contender, case):
        inference = build_inference(contender, replace(case, crowded=True))
        if contender.name == "aligndet_small":
            inference.model.adm.box_predictor.bias.data.fill_(torch.nan)
        return inference

    monkeypatch.setattr(model, "build_inference", build)
    wrong, right = bench([tiny("aligndet_small"), tiny()], runs=1).results
    assert (wrong.is_wrong, wrong.samples, wrong.note) == (True, [], NOT_FINITE)
    assert right.samples


def test_a_bug_is_not_taken_for_a_failing_detector(monkeypatch):
    def fail(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(model, "build_inference", fail)
    with pytest.raises(TypeError, match="a bug"):
        bench([tiny()])


def test_all_failing_is_a_report_too(monkeypatch):
    monkeypatch.setattr(detectors, "load_torchvision", lambda *_, **__: (_ for _ in ()).throw(UserError("gone")))
    report = bench([Contender(TORCHVISION)], runs=1)
    assert [result.note for result in report.results] == ["gone"]
    assert report.product.samples
    assert Image.open(io.BytesIO(plot_models(report))).format == "PNG"


def test_the_peer_is_the_papers_retinanet_else_any_else_the_first_that_ran():
    ours, theirs = find_contender("retinanet_r50"), Contender(TORCHVISION)
    aligned, small = find_contender("aligndet_small"), tiny()
    assert choose_peer([aligned, theirs, small, ours], {}) == "retinanet_r50"
    assert choose_peer([aligned, theirs, small, ours], {"retinanet_r50": "why"}) == TORCHVISION
    assert choose_peer([aligned, small], {}) == "retinanet_small"
    assert choose_peer([aligned], {}) == choose_peer([aligned], {"aligndet_small": "why"}) == "aligndet_small"


def test_the_papers_speeds_are_those_of_table_6():
    paper = paper_speeds()
    assert list(paper.milliseconds.values()) == [47, 49, 63, 86, 56, 58]
    assert (paper.table, paper.gpu, paper.runs) == ("Table 6", "NVIDIA 2080", 100)
    assert paper.ratio("aligndet_r50_head4", "retinanet_r50") == pytest.approx(0.81, abs=0.005)
    assert paper.ratio("aligndet_r50", "retinanet_r50") == pytest.approx(1.48, abs=0.005)
    assert paper.ratio(TORCHVISION, "retinanet_r50") is paper.ratio("aligndet_r50", TORCHVISION) is None


def test_the_default_is_table_6_and_torchvision():
    names = default_names()
    assert names[: len(paper_speeds().milliseconds)] == list(paper_speeds().milliseconds)
    contenders = [find_contender(name) for name in names]
    assert [contender.is_retinanet for contender in contenders] == [False] * 5 + [True, True, False]
    assert load_recipe("aligndet_r50_k3").model.adm.alignment.kernel_size == 3
    assert load_recipe("aligndet_r50_k5").model.adm.alignment.kernel_size == 5
    assert {load_recipe(name).model.adm.channels for name in names if "_k" in name} == {1024}


MACHINE = Machine("cpu", "a processor", 8, 2, "AVX2", "Linux", {"torch": "2.99"}, load=0.1)
PAPER = PaperSpeeds("Table 6", "a GPU", 100, {"peer": 50.0, "fast": 40.0})
SPLITS = [dict(zip(PARTS, (number, 2.0, 3.0, 4.0, 5.0))) for number in (1.0, 9.0, 2.0)]


def result(name, *seconds, **options):
    samples = [Sample(round, wall, wall) for round, wall in enumerate(seconds)]
    return ModelResult(name, "inference", 600, samples, **options)


def make_report(*results):
    product = Result("product", "product", 600, [Sample(0, 1.0, 1.0)])
    subject = {"size": (800, 1333), "batch": 1, "dtype": "float32", "tf32": False, "crowded": False}
    return ModelReport("model", subject, MACHINE, product, results, peer="peer", paper=PAPER)


def test_ratios_are_of_medians_beside_the_papers():
    fast, peer, other = result("fast", 0.9, 30.0, 0.1), result("peer", 1.0, 2.0, 1.0), result("other", 3.0)
    report = make_report(fast, peer, other)
    assert [report.ratio_to_peer(one) for one in report.results] == [0.9, 1.0, 3.0]
    assert [report.paper_ratio(one) for one in report.results] == [0.8, 1.0, None]


def test_a_split_is_of_medians():
    assert result("one", 20.0, splits=SPLITS).split == dict(zip(PARTS, (2.0, 2.0, 3.0, 4.0, 5.0)))
    assert result("one", 20.0).split == {}


def test_json_has_all_raw_numbers():
    report = bench([tiny("aligndet_small"), tiny(), Contender("torchvision:gone")])
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (document["bench"], document["peer"]) == ("model", "retinanet_small")
    assert document["subject"] == {
        "size": [64, 96],
        "batch": 1,
        "dtype": "float32",
        "device": "cpu",
        "crowded": False,
        "channels_last": False,
        "tf32": False,
    }
    assert document["machine"]["num_threads"] == torch.get_num_threads()
    assert document["paper"]["milliseconds"]["retinanet_r50"] == 58
    first, peer, failed = document["results"]
    assert [sample["round"] for sample in first["samples"]] == [0, 1, 2]
    assert first["seconds"]["median"] == sorted(sample["wall"] for sample in first["samples"])[1]
    assert first["ratio_to_peer"] == first["seconds"]["median"] / peer["seconds"]["median"]
    assert (first["memory"]["peak"], first["num_detections"], first["random_weights"]) == (1000, 0, True)
    assert [list(split) for split in first["splits"]] == [list(PARTS)] * len(first["splits"])
    assert first["splits"]
    assert first["split_seconds"].keys() == set(PARTS)
    assert "samples" not in failed
    assert "no box detector 'gone'" in failed["note"]
    assert failed["paper_milliseconds"] is None


def test_bars_are_as_long_as_the_time_without_hooks():
    split = result("one", 20.0, splits=SPLITS)
    assert list(bar_parts(split)) == list(PARTS)
    assert sum(bar_parts(split).values()) == pytest.approx(milliseconds(split)) == 20_000
    assert bar_parts(split)["heads"] == pytest.approx(20_000 * 4 / 16)
    assert bar_parts(result("one", 20.0)) == {WHOLE: 20_000}


def test_labels_carry_time_and_both_ratios():
    report = make_report(result("fast", 0.045), result("peer", 0.05), result("other", 0.4), result("gone", note="why"))
    labels = [label(report, one) for one in report.results]
    assert labels == ["45 ms   0.90 (0.80)", "50 ms   1.00 (1.00)", "400 ms   8.00", "not run"]


def test_the_picture_has_every_part_in_its_colour():
    report = make_report(result("fast", 1.0, splits=SPLITS), result("peer", 2.0), result("gone", note="why"))
    picture = Image.open(io.BytesIO(plot_models(report))).convert("RGB")
    drawn = {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {tuple(round(255 * value) for value in COLOURS[part]) for part in (*PARTS, WHOLE)} <= drawn
    assert picture.width == 1080


def test_names_with_dollars_are_no_formulas():
    odd = [result(name, 1.0) for name in ("runs/a$_^$", "torchvision:$_^$", "_peer$_^$")]
    report = replace(make_report(*odd), peer="_peer$_^$")
    assert Image.open(io.BytesIO(plot_models(report))).width == 1080


@pytest.mark.gpu
def test_cuda_splits_by_events():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    report = bench([tiny("aligndet_small"), tiny()], replace(CASE, device="cuda", dtype="float16"), product_side=1024)
    for one in report.results:
        assert one.samples, one.note
        assert all(seconds > 0 for seconds in one.split.values())
