"""`aligncli bench`: tables, JSON, progress, and one line for every wrong option. No time is asserted."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from aligncli.analysis.bench import contenders, detectors, fairness, memory
from aligncli.cli.bench import shared
from aligncli.cli.bench.shared import milliseconds, parse_names, parse_size
from aligncli.errors import UserError
from tests.cli.command_line import Run

SMALL = [
    *("bench", "op", "--levels", "p4,p5", "--size", "64x96", "--in-channels", "4", "--out-channels", "4"),
    *("--runs", "2", "--seconds", "1", "--threads", "1", "--device", "cpu", "--backend", "portable"),
]

# matplotlib warns where text that reaches out of its axes leaves these no room
WELL_LAID_OUT = pytest.mark.filterwarnings("error:constrained_layout not applied:UserWarning")


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own rate takes a moment instead of seconds."""
    monkeypatch.setitem(fairness.PRODUCT_SIDES, "cpu", 64)
    monkeypatch.setattr(fairness, "COPIED", 1 << 20)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that does not tell a process's memory: saves the start of one."""
    monkeypatch.setattr(memory, "CLEAR_REFS", Path("nowhere"))


def test_people_get_tables_that_fit_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(*SMALL)
    assert ended.code == 0, ended.stderr
    for text in ("conv2d", "RoIConv portable", "deform_conv2d", "RoIAlign + linear", "forward+backward", "quartiles"):
        assert ended.stdout.count(text) >= 1, text
    assert "30 locations" in ended.stdout.replace("\n", " ")
    assert "1 thread" in ended.stdout
    assert "torch 2." in ended.stdout
    assert max(len(line.rstrip()) for line in ended.stdout.splitlines()) <= 80
    assert "checking 4/4" in ended.stderr
    assert re.search(r"^timing (18/18|20/20|22/22)$", ended.stderr, re.MULTILINE)  # 8 and 1 to 3 products, twice
    assert "memory 8/8" in ended.stderr


def test_json_is_alone_on_stdout_with_every_sample(run: Run) -> None:
    ended = run(*SMALL, "--json", "--forward-only", "--peers", "none", "--kernel", "5", "--boxes", "implicit")
    assert ended.code == 0, ended.stderr
    assert "counting 1/1" in ended.stderr
    document = ended.json
    assert document["subject"]["kernel_size"] == 5
    assert document["subject"]["boxes"] == "implicit"
    assert document["machine"]["num_threads"] == 1
    [result] = document["results"]
    assert (result["name"], result["part"]) == ("roi_conv:portable", "forward")
    assert len(result["samples"]) == 2
    assert result["flops"] == 2 * 30 * 25 * 4 * 4
    assert result["ratio_to_peer"] is None
    if sys.platform == "linux":
        assert 0 <= result["memory"]["peak"] < 1 << 27


@pytest.mark.usefixtures("no_memory")
def test_a_wrong_contender_ends_with_code_1_and_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    right = contenders.roi_conv
    monkeypatch.setattr(contenders, "roi_conv", lambda *args, **kw: [-level for level in right(*args, **kw)])
    ended = run(*SMALL, "--forward-only", "--peers", "conv2d")
    assert ended.code == 1
    assert "RoIConv portable: its output is wrong by" in ended.stdout
    assert "internal error" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "p3,p9"], "--levels 'p9' is unknown: choose from p2, p3, p4, p5, p6, p7, or all"),
        (["--levels", ""], "--levels '' is unknown"),
        (
            ["--peers", "cudnn"],
            "--peers 'cudnn' is unknown: choose from conv2d, deform_conv2d, roi_align, or all or none",
        ),
        (["--backend", "fast"], "--backend 'fast' is unknown"),
        (["--backend", "none"], "--backend 'none' is unknown"),
        (["--size", "800"], "--size '800' must be height x width"),
        (["--size", "0x5"], "--size '0x5' must be height x width"),
        (["--size", "99999x5"], "--size '99999x5' must be height x width"),
        (["--kernel", "4"], "--kernel 4 must be odd"),
        (["--kernel", "0"], "--kernel"),
        (["--runs", "0"], "--runs"),
        (["--seconds", "-1"], "--seconds"),
        (["--dtype", "int8"], "--dtype"),
        (["--device", "abacus"], "abacus"),
        (["--device", "meta"], "device 'meta' is unknown: expected auto, cpu, cuda, cuda:1 or mps"),
        (["--tf32", "--device", "cpu"], "--tf32 is a precision of CUDA's, and the device is cpu: leave it out"),
    ],
)
def test_wrong_options_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    assert message in run("bench", "op", *arguments).error_line()


def test_a_forced_backend_is_refused_as_it_would_stand_in_for_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "portable")
    assert "ALIGNCLI_ROI_CONV=portable" in run(*SMALL).error_line()


def test_names_keep_the_known_order_and_are_not_repeated() -> None:
    assert parse_names("--levels", " P5, p3,p5", ("p3", "p4", "p5"), all_of=("p3", "p4")) == ("p3", "p5")
    assert parse_names("--levels", "all", ("p3", "p4", "p5"), all_of=("p3", "p4")) == ("p3", "p4")
    assert parse_names("--peers", "none", ("a", "b"), all_of=("a", "b"), or_none=True) == ()


def test_sizes_are_height_by_width() -> None:
    assert parse_size("800x1333") == (800, 1333)
    assert parse_size(" 64X32 ") == (64, 32)
    with pytest.raises(UserError, match="must be height x width"):
        parse_size("-4x5")


def test_milliseconds_have_three_digits() -> None:
    assert [milliseconds(value) for value in (10.6981, 0.1281, 0.01304, 0.00012)] == ["10,698", "128", "13.0", "0.12"]


PAIR = [
    *("bench", "model", "aligndet_small", "retinanet_small", "--height", "64", "--width", "96"),
    *("--threads", "1", "--device", "cpu", "--quick"),
]


def test_detectors_are_tables_that_fit_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(*PAIR)
    assert ended.code == 0, ended.stderr
    for text in ("1 image of 64x96, float32", "1 thread", "torch 2.", "quartiles", "backbone", "neck", "heads", "post"):
        assert text in ended.stdout, text
    assert ended.stdout.count("aligndet_small") == ended.stdout.count("retinanet_small") - 1 == 3
    assert "ratio: of medians, to retinanet_small" in ended.stdout
    assert "random weights: 0 detections an image" in ended.stdout
    assert max(len(line.rstrip()) for line in ended.stdout.splitlines() if ":" not in line) <= 80
    assert "preparing 2/2" in ended.stderr
    assert "splitting 2/2" in ended.stderr
    assert "memory" not in ended.stderr


def test_every_contender_is_in_full_precision(run: Run) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    ended = run(*PAIR)
    assert ended.code == 0, ended.stderr
    assert not torch.backends.cuda.matmul.allow_tf32


def test_detectors_in_json_are_alone_on_stdout(run: Run) -> None:
    document = run(*PAIR, "--json", "--crowded", "--dtype", "bfloat16", "--batch", "2").json
    assert (
        document["subject"] | {"size": [64, 96], "batch": 2, "dtype": "bfloat16", "crowded": True}
        == (document["subject"])
    )
    assert document["machine"]["num_threads"] == 1
    assert [result["name"] for result in document["results"]] == ["aligndet_small", "retinanet_small"]
    assert [len(result["samples"]) for result in document["results"]] == [2, 2]
    assert all(result["num_detections"] == 100 for result in document["results"])


@WELL_LAID_OUT
def test_a_trained_run_takes_part_and_the_picture_is_drawn(run: Run, trained_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bars.png"
    ended = run(*PAIR, trained_run, "--plot", picture)
    assert ended.code == 0, ended.stderr
    assert f"picture: {picture}" in ended.stdout
    assert Image.open(picture).format == "PNG"


def test_a_detector_that_fails_ends_with_code_1_and_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("it is gone")

    monkeypatch.setattr(detectors, "load_torchvision", fail)
    ended = run(*PAIR, "torchvision:fcos_resnet50_fpn")
    assert ended.code == 1
    assert "torchvision:fcos_resnet50_fpn: it is gone" in ended.stdout
    assert "not run" in ended.stdout
    assert "retinanet_small" in ended.stdout
    assert "internal error" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retinanet_smal"], "unknown recipe 'retinanet_smal': did you mean 'retinanet_small'?"),
        (["torchvision:yolo"], "torchvision has no box detector 'yolo': there are "),
        (["--height", "0"], "--height"),
        (["--width", "99999"], "--width"),
        (["--dtype", "float64"], "--dtype"),
        (["--dtype", "float16", "--device", "cpu"], "float16 needs a GPU: on the CPU take bfloat16"),
        (["retinanet_small@float16", "--device", "cpu"], "float16 needs a GPU: on the CPU take bfloat16"),
        (["retinanet_smal@bfloat16"], "unknown recipe 'retinanet_smal': did you mean 'retinanet_small'?"),
        (["--device", "meta"], "device 'meta' is unknown: expected auto, cpu, cuda, cuda:1 or mps"),
        (["--tf32", "--device", "cpu"], "--tf32 is a precision of CUDA's, and the device is cpu: leave it out"),
        (["--plot", "bars.svg"], "--plot bars.svg: expected a name that ends in .png"),
        (["--plot", f"{__file__}/bars.png"], "test_bench.py is a file, not a folder"),
        (["--code", "nowhere.py"], "nowhere.py does not exist"),
        (["--runs", "0"], "--runs"),
    ],
)
def test_wrong_options_of_model_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    assert message in run("bench", "model", *arguments).error_line()


STEPS = [
    *("bench", "train", "aligndet_small", "torchvision:fcos_resnet50_fpn", "--size", "64x64", "--batch", "1"),
    *("--threads", "1", "--device", "cpu", "--quick"),
]


def test_training_steps_are_tables_that_fit_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(*STEPS)
    assert ended.code == 0, ended.stderr
    for text in ("1 image of 64x64, float32; 7 objects an image, 80 classes", "1 thread", "images/s", "M trained"):
        assert text in ended.stdout, text
    assert "ratio: of medians, and of peak memory, to aligndet_small" in ended.stdout
    assert max(len(line.rstrip()) for line in ended.stdout.splitlines() if ":" not in line) <= 80
    assert "preparing 2/2" in ended.stderr
    assert "memory" not in ended.stderr


def test_training_steps_in_json_are_alone_on_stdout(run: Run) -> None:
    ended = run(*STEPS[:3], *STEPS[4:], "--json", "--objects", "3", "--classes", "4")
    assert ended.code == 0, ended.stderr
    document = ended.json
    subject = {"size": [64, 64], "batch": 1, "num_objects": 3, "num_classes": 4, "dtype": "float32"}
    assert document["subject"].items() >= subject.items()
    [result] = document["results"]
    assert len(result["samples"]) == 2
    assert result["images_per_second"] > 0
    assert result["peak_memory"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retinanet_smal"], "unknown recipe 'retinanet_smal': did you mean 'retinanet_small'?"),
        (["--size", "512"], "--size '512' must be height x width"),
        (["--objects", "-1"], "--objects"),
        (["--classes", "0"], "--classes"),
        (["--dtype", "float16", "--device", "cpu"], "float16 needs a GPU: on the CPU take bfloat16"),
        (["--tf32", "--device", "cpu"], "--tf32 is a precision of CUDA's, and the device is cpu: leave it out"),
    ],
)
def test_wrong_options_of_train_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    assert message in run("bench", "train", *arguments).error_line()


FILES = ("bench", "data", "--images", "4", "--photo", "48x64", "--short-side", "64", "--runs", "2")


def test_loaders_are_a_table_that_fits_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(*FILES)
    assert ended.code == 0, ended.stderr
    for text in ("made JPEG files: 4 of 48x64 to 64/1333", "of 2, no workers", "images/s", "speed-up: of medians"):
        assert text in ended.stdout, text
    assert max(len(line.rstrip()) for line in ended.stdout.splitlines()) <= 80


def test_ones_own_images_are_read_in_place(run: Run, data_folder: Path) -> None:
    ended = run(*FILES, "--data", data_folder, "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["subject"]["data"] == str(data_folder)
    assert ended.json["subject"]["num_images"] == 4
    assert [len(result["samples"]) for result in ended.json["results"]] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--photo", "big"], "--photo 'big' must be height x width"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--images", "2", "--batch", "3"], "2 images make no batch of 3"),
        (["--workers", "-1"], "--workers"),
    ],
)
def test_wrong_options_of_data_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    assert message in run(*FILES, *arguments).error_line()


SCORES = ("bench", "eval", "--images", "20", "--classes", "3", "--detections", "10", "--runs", "1")


def test_evaluators_are_a_table_that_fits_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = run(*SCORES)
    assert ended.code == 0, ended.stderr
    for text in ("20 images, 3 classes", "hotcoco", "pycocotools", "speed-up: of medians", "equal to the last bit"):
        assert text in ended.stdout, text
    assert max(len(line.rstrip()) for line in ended.stdout.splitlines()) <= 80


def test_evaluators_in_json_are_alone_on_stdout(run: Run) -> None:
    ended = run(*SCORES, "--json")
    assert ended.code == 0, ended.stderr
    assert [result["name"] for result in ended.json["results"]] == ["hotcoco", "pycocotools"]
    assert "error: " in run(*SCORES, "--detections", "0").stderr


@pytest.mark.usefixtures("no_memory")
def test_growth_is_one_table_and_one_picture(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    picture = tmp_path / "growth.png"
    ended = run(*STEPS[:3], *STEPS[4:], "--vary", "objects=0,5", "--vary", "size=64,96", "--plot", picture)
    assert ended.code == 0, ended.stderr
    for text in ("objects 5", "size 96", "best fit: time as size^", f"picture: {picture}", "ratio: of medians"):
        assert text in ended.stdout, text
    assert ended.stdout.count("images/s") == 1
    assert "size 96, preparing 1/1" in ended.stderr
    assert Image.open(picture).format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "colour"], "--vary 'colour' is unknown: choose from size, batch, objects, classes"),
        (["--vary", "batch=0,1"], "--vary batch=0,1: expected two whole numbers or more from 1 on"),
        (["--plot", "growth.svg"], "--plot growth.svg: expected a name that ends in .png"),
    ],
)
def test_wrong_growth_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    assert message in run("bench", "train", *arguments).error_line()


@WELL_LAID_OUT
@pytest.mark.usefixtures("no_memory")
def test_every_benchmark_draws_itself(run: Run, tmp_path: Path) -> None:
    commands = {
        "op": [*SMALL, "--forward-only", "--peers", "conv2d"],
        "train": [*STEPS[:3], *STEPS[4:]],
        "data": FILES,
        "eval": SCORES,
    }
    for name, words in commands.items():
        picture = tmp_path / f"{name}.png"
        ended = run(*words, "--plot", picture)
        assert ended.code == 0, ended.stderr
        assert f"picture: {picture}" in ended.stdout
        assert Image.open(picture).width == 960
        assert "--plot bars.svg: expected a name that ends in .png" in run(*words, "--plot", "bars.svg").error_line()


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("json", [False, True])
def test_what_was_measured_is_told_also_where_the_picture_cannot_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "bars.png")

    monkeypatch.setattr(shared, "save_picture", fail)
    growth = [*STEPS[:3], *STEPS[4:], "--vary", "size=64,96"]
    for words in (PAIR, growth, SCORES):
        ended = run(*words, "--plot", tmp_path / "bars.png", *["--json"] * json)
        assert ended.code == 2
        assert "bars.png: No space left on device" in ended.stderr
        assert ended.json if json else "quartiles" in ended.stdout or "peak MB" in ended.stdout
