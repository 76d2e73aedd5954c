"""`aligncli export`, and the script of docs/export.md on what it wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from aligncli import load_run
from aligncli.build import build_dataset
from aligncli.cli.app import main
from tests.cli.command_line import TINY_SHAPES, Run
from tests.test_docs import python_blocks

# Small, and so unsure of itself that it detects a lot
UNSURE = {
    "model.postprocess.score_threshold": 0.004,
    "model.neck.levels": "3,4",
    "model.adm.num_convs": 0,
    "model.adm.alignment.kernel_size": 3,
    "model.dpm.tower.num_convs": 0,
    "data.image_size": 64,
    "input.min_short_side": 64,
    "input.max_short_side": 64,
    "input.long_side": 64,
}


@pytest.fixture(scope="module")
def unsure_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("unsure") / "run"
    settings = [word for key, value in UNSURE.items() for word in ("--set", f"{key}={value}")]
    with pytest.raises(SystemExit) as exit_:
        main(["train", "quickstart", "--device", "cpu", "--out", str(run_dir), *TINY_SHAPES, *settings])
    assert exit_.value.code == 0
    return run_dir


def detections_of_script(script: str, *arguments: object, cwd: Path) -> list[tuple[str, list[float]]]:
    """What the script prints: class, then score and box."""
    ended = subprocess.run(
        [sys.executable, script, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    return [(line[0], [float(word) for word in line[1:]]) for line in lines]


@pytest.mark.slow
def test_the_exported_file_serves_the_script_of_the_docs(run: Run, unsure_run: Path, tmp_path: Path) -> None:
    ended = run("export", unsure_run, "--out", tmp_path / "model.onnx", "--verify", "--images", 2, "--json")
    assert ended.code == 0, ended.stderr
    document = ended.json
    assert document["input"] == [1, 3, "height", "width"]
    assert document["bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert document["verified"]["num_unpaired"] == 0
    assert document["verified"]["num_own"] > 20

    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert {"DeformConv", "NonMaxSuppression"} <= {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in ((64, 128), (160, 96)):
        boxes, scores, labels = session.run(None, {"images": np.zeros((1, 3, *size), np.float32)})
        assert (boxes.shape, scores.shape, labels.shape) == ((1, 100, 4), (1, 100), (1, 100))
    about = json.loads(session.get_modelmeta().custom_metadata_map["aligncli"])
    assert about["roi_conv"] == "deform_conv"
    assert about["input"]["resize"] == {"short_side": 64, "long_side": 64}
    assert about["input"]["multiple_of"] == 32

    script, _ = python_blocks("export.md")
    assert not re.search(r"^(import|from) (aligncli|torch)", script, re.MULTILINE)
    (tmp_path / "detect.py").write_text(script)
    loaded = load_run(unsure_run)
    pixels, _ = build_dataset(loaded.recipe, "val")[0]
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    printed = detections_of_script("detect.py", "model.onnx", "photo.png", cwd=tmp_path)
    with torch.inference_mode():
        (own,) = loaded.model([pixels / 255])
    assert len(printed) == len(own["scores"]) > 20
    names = loaded.categories.names
    for (name, (score, *box)), label, wanted_score, wanted in zip(
        printed, own["labels"].tolist(), own["scores"].tolist(), own["boxes"].tolist(), strict=True
    ):
        assert score == pytest.approx(wanted_score, abs=1e-3)
        if name == names[label]:  # equal scores may come in either order
            assert box == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "480"], "--size '480': expected HEIGHTxWIDTH in pixels, as 480x640, or any"),
        (["--size", "100x128"], "100 pixels must be a multiple of 32, and at least 64"),
        (["--data", "folder"], "--data goes with --verify"),
        (["--format", "tflite"], "'--format'"),
        (["--roi-conv", "gather"], "'--roi-conv'"),
    ],
)
def test_a_wrong_choice_is_one_line(run: Run, unsure_run: Path, arguments: list[str], message: str) -> None:
    assert message in run("export", unsure_run, *arguments).error_line()
    assert not list(unsure_run.glob("model.[op]*"))


def test_what_is_no_run_is_named(run: Run, tmp_path: Path) -> None:
    assert f"{tmp_path} holds no recipe.json" in run("export", tmp_path).error_line()
