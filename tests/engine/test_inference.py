"""A run folder can be loaded, evaluated and used on files."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from aligncli.data.dataset import Categories
from aligncli.engine import inference
from aligncli.engine.compiling import compile_detector
from aligncli.engine.evaluate import evaluate_run
from aligncli.engine.inference import LoadedRun, load_run, predict_images
from aligncli.engine.train import train
from aligncli.errors import CheckpointError, DataError, DeviceError
from tests.engine.conftest import SECONDS
from tests.helpers import tiny_detector, tiny_recipe

THINGS = Categories(("one", "two", "three"), (1, 2, 3))
SMALL_INPUT = {"input.min_short_side": 48, "input.max_short_side": 64, "input.long_side": 96}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    recipe = tiny_recipe("aligndet_small", SECONDS)
    return train(recipe, tmp_path_factory.mktemp("runs") / "run")


def test_evaluating_a_run_gives_the_numbers_that_training_ended_with(trained):
    evaluation = evaluate_run(trained.run_dir)
    assert evaluation.metrics == pytest.approx(trained.metrics, nan_ok=True)
    written = json.loads((trained.run_dir / "evaluation.json").read_text())
    assert written["num_images"] == 4
    assert written["num_detections"] == len(json.loads((trained.run_dir / "results.json").read_text()))


def test_both_evaluators_agree_on_a_real_run(trained):
    fast = evaluate_run(trained.run_dir, evaluator="hotcoco", per_class=True)
    slow = evaluate_run(trained.run_dir, evaluator="pycocotools", per_class=True)
    assert str(fast.metrics) == str(slow.metrics)  # to the last bit; as text because NaN is not itself
    assert str(fast.per_class) == str(slow.per_class)
    assert len(fast.per_class) == 6


def test_another_precision_leaves_the_run_folder_as_it_is(trained):
    before = {path.name: path.read_bytes() for path in trained.run_dir.iterdir() if path.is_file()}
    evaluation = evaluate_run(trained.run_dir, amp="bf16")
    assert evaluation.num_images == 4
    assert {path.name: path.read_bytes() for path in trained.run_dir.iterdir() if path.is_file()} == before


def test_the_precision_asked_for_is_that_of_the_maps(trained, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    seen = []
    for amp in (None, "bf16"):
        run = load_run(trained.run_dir).tuned(amp=amp)
        run.model.postprocess.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].logits.dtype))
        list(predict_images(run, [tmp_path / "black.png"]))
    assert seen == [torch.float32, torch.bfloat16]


def test_a_compiled_detector_finds_the_same_in_images_of_any_size(tmp_path, monkeypatch):
    """Traced as for the real compiler, which takes minutes to write code for all of it.

    RoIConv on a single level: in less than half of an AlignDet's time, which tests/models/test_aligndet.py takes.
    """
    monkeypatch.setattr(inference, "compile_detector", partial(compile_detector, backend="eager"))
    recipe = tiny_recipe("retinanet_small_p2_roiconv", SMALL_INPUT)
    run = LoadedRun.of(recipe, tiny_detector(recipe.name, changes=SMALL_INPUT).eval(), THINGS)
    run.model.postprocess.logit_threshold = -float("inf")
    draw = np.random.default_rng(0)
    paths = [tmp_path / "wide.png", tmp_path / "tall.png"]
    for path, shape in zip(paths, [(48, 64, 3), (80, 60, 3)], strict=True):
        Image.fromarray(draw.integers(0, 255, shape, dtype=np.uint8)).save(path)
    plain, compiled = (
        [output for _, _, output in predict_images(detector, paths, score_threshold=0.0)]
        for detector in (run, run.tuned(compiled=True))
    )
    for ours, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours["scores"], theirs["scores"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], atol=1e-2, rtol=0)


def test_a_machine_that_compiles_nothing_is_told_in_one_line(trained, monkeypatch):
    def compile_nothing(function, **options):
        def call(x):
            raise RuntimeError("no working compiler\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(DeviceError, match=r"torch\.compile does not work .*\(no working compiler\): install g\+\+"):
        load_run(trained.run_dir).tuned(compiled=True).for_inference()


def test_predicted_boxes_are_in_pixels_of_the_upright_original(trained, tmp_path):
    run = load_run(trained.run_dir)
    run.model.postprocess.logit_threshold = -float("inf")
    pixels = np.random.default_rng(0).integers(0, 255, (100, 300, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to show: 300 x 100 becomes 100 x 300
    image.save(tmp_path / "rotated.png", exif=exif)
    ((path, original, output),) = predict_images(run, [tmp_path / "rotated.png"], score_threshold=0.0)
    assert path.name == "rotated.png"
    assert original.size == (100, 300)
    assert len(output["boxes"]) == 100
    assert output["boxes"][:, 2].max() <= 100.01
    assert output["boxes"][:, 3].max() > 150  # not confined to the resized frame
    assert output["boxes"][:, 3].max() <= 300.01


def test_the_score_threshold_cuts(trained, tmp_path):
    run = load_run(trained.run_dir)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    ((_, _, output),) = predict_images(run, [tmp_path / "black.png"], score_threshold=1.0)
    assert len(output["boxes"]) == 0


def test_an_unreadable_file_is_named(trained, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(predict_images(load_run(trained.run_dir), [tmp_path / "broken.jpg"]))


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="run folder"):
        load_run(tmp_path)


def test_data_with_other_classes_is_refused(trained, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    annotations = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(annotations))
    before = (trained.run_dir / "evaluation.json").read_bytes()
    with pytest.raises(DataError, match="1 categories, but 6"):
        evaluate_run(trained.run_dir, data=tmp_path)
    assert (trained.run_dir / "evaluation.json").read_bytes() == before


def test_loaded_models_do_not_train(trained):
    run = load_run(trained.run_dir)
    assert not run.model.training
    assert isinstance(run.model(list(torch.rand(1, 3, 64, 64)))[0], dict)
