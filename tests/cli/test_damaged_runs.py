"""A run folder that was edited, half deleted or made by somebody else: one line, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aligncli.engine.checkpoint import STATE, WEIGHTS, state_bytes
from aligncli.engine.disk import write_folder
from tests.cli.command_line import TINY, TINY_SHAPES, Run, make_data_folder

DEEP = "[" * 1_000_000


def first_line(text: str) -> Callable[[Path], None]:
    """Puts a line before those of metrics.jsonl."""

    def edit(run_dir: Path) -> None:
        path = run_dir / "metrics.jsonl"
        path.write_text(f"{text}\n{path.read_text()}")

    return edit


def content(name: str, data: str | bytes) -> Callable[[Path], None]:
    return lambda run_dir: void((run_dir / name).write_bytes(data.encode() if isinstance(data, str) else data))


def gone(name: str) -> Callable[[Path], None]:
    return lambda run_dir: (run_dir / name).unlink()


def folder(name: str) -> Callable[[Path], None]:
    def edit(run_dir: Path) -> None:
        (run_dir / name).unlink()
        (run_dir / name).mkdir()

    return edit


def state(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    """Gives the checkpoints another training state, with a manifest that confirms it."""

    def edit(run_dir: Path) -> None:
        for path in (run_dir / "checkpoints").iterdir():
            values = change(torch.load(path / STATE, weights_only=True))
            write_folder(path, {WEIGHTS: (path / WEIGHTS).read_bytes(), STATE: state_bytes(values)})

    return edit


def half_deleted(run_dir: Path) -> None:
    for path in (run_dir / "checkpoints").iterdir():
        (path / STATE).unlink()


def void(value: object) -> None:
    del value


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (content("recipe.json", DEEP), "recipe.json is not valid JSON: nested too deeply"),
        (content("recipe.json", "[]"), "recipe.json holds a list, expected an object"),
        (gone("categories.json"), "holds no categories.json"),
        (gone("metrics.jsonl"), "metrics.jsonl cannot be read"),
        (folder("metrics.jsonl"), "metrics.jsonl cannot be read"),
        (content("metrics.jsonl", b"\xff\n"), "metrics.jsonl cannot be read"),
        (first_line("{broken"), "metrics.jsonl, line 1 cannot be read"),
        (first_line(DEEP), "metrics.jsonl, line 1 cannot be read (nested too deeply)"),
        (first_line("[1]"), "metrics.jsonl, line 1 is no record of a training"),
        (first_line("{}"), "metrics.jsonl, line 1 is no record of a training"),
        (first_line('{"iteration": "x"}'), "metrics.jsonl, line 1 is no record of a training"),
        (lambda run_dir: shutil.rmtree(run_dir / "checkpoints"), "holds no checkpoint to resume from"),
        (half_deleted, "holds no sound checkpoint to resume from"),
        (state(lambda values: {}), "the training state in"),
        (state(lambda values: values | {"optimizer": {}}), "does not fit (KeyError: 'param_groups')"),
        (state(lambda values: values | {"optimizer": 3}), "does not fit"),
        (state(lambda values: values | {"rng": {}}), "does not fit (KeyError: 'torch')"),
        (state(lambda values: values | {"rng": values["rng"] | {"torch": torch.zeros(3)}}), "does not fit"),
        (state(lambda values: values | {"data": "9 images (0)"}), "has changed, from 9 images (0) to 4 images"),
    ],
)
def test_what_cannot_be_resumed_is_one_line_and_stays_as_it_is(
    run: Run, trained_run: Path, tmp_path: Path, edit: Callable[[Path], None], message: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(trained_run, run_dir)
    edit(run_dir)
    before = files_in(run_dir)
    assert message in run("train", "--resume", "--out", run_dir, "--device", "cpu").error_line()
    assert files_in(run_dir) == before


def files_in(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


RESULT = '{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}'


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("results.json", "[1]", "errors"),
        ("results.json", "{}", "errors"),
        ("results.json", DEEP, "errors"),
        ("results.json", f"[{RESULT.replace('0.5', 'NaN')}]", "errors"),
        ("results.json", f"[{RESULT.replace('[0,', '[NaN,')}]", "compare"),
        ("results.json", f"[{RESULT.replace(': 1,', ': 10000,')}]", "compare"),
        ("results.json", f"[{RESULT.replace(': 1,', ': null,')}]", "compare"),
        ("evaluation.json", "[1]", "show"),
        ("evaluation.json", "{}", "show"),
        ("evaluation.json", '{"metrics": 3}', "show"),
        ("evaluation.json", '{"metrics": {"AP": "x"}}', "show"),
        ("evaluation.json", DEEP, "show"),
        ("environment.json", "{}", "show"),
        ("model.safetensors", "x" * 8, "eval"),
        ("categories.json", '{"names": 3}', "eval"),
    ],
)
def test_what_is_no_file_of_ours_is_named(
    run: Run, trained_run: Path, tmp_path: Path, name: str, text: str, command: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(trained_run, run_dir)
    (run_dir / name).write_text(text)
    commands = {
        "errors": ("errors", run_dir),
        "compare": ("runs", "compare", run_dir, trained_run),
        "show": ("runs", "show", run_dir),
        "eval": ("eval", run_dir, "--device", "cpu"),
    }
    ended = run(*commands[command])
    assert ended.code == 2, ended
    assert (name if name != "categories.json" else "categories: expected") in ended.stderr.splitlines()[-1]
    assert "internal error" not in ended.stderr


def test_a_damaged_note_of_the_time_costs_that_alone(run: Run, trained_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(trained_run, run_dir)
    (run_dir / "time.json").write_text("[]")
    shown = [run("runs", "show", folder, "--json").json for folder in (trained_run, run_dir)]
    assert shown[0]["metrics"] == shown[1]["metrics"]


def test_a_damaged_run_is_listed_as_such_beside_the_others(run: Run, trained_run: Path, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        shutil.copytree(trained_run, tmp_path / name)
    (tmp_path / "bad" / "evaluation.json").write_text("[1]")
    ended = run("runs", "list", tmp_path)
    assert ended.code == 0
    assert "good" in ended.stdout
    assert "evaluation.json does not hold what aligncli writes there" in ended.stderr


def test_pipes_are_refused_instead_of_waited_for(run: Run, trained_run: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "recipe.json", "categories.json"):
        run_dir = tmp_path / name
        shutil.copytree(trained_run, run_dir)
        (run_dir / name).unlink()
        os.mkfifo(run_dir / name)
        assert name in run("eval", run_dir, "--device", "cpu").error_line()


def test_a_list_in_place_of_a_training_state_is_passed_over(run: Run, trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    state(lambda values: values)(tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        torch.save([1, 2], path / STATE)
        write_folder(path, {name: (path / name).read_bytes() for name in (WEIGHTS, STATE)})
    line = run("train", "--resume", "--out", tmp_path / "run", "--device", "cpu").error_line()
    assert "state.pt holds a list: expected a training state" in line


def rename(document: dict[str, Any]) -> None:
    document["categories"][0]["name"] = "cow"


def drop(document: dict[str, Any]) -> None:
    del document["images"][-1], document["annotations"][-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "has changed: category id 1 'cow' stands where id 1 'cat' was expected"),
        (drop, "has changed, from 4 images ("),
    ],
)
def test_a_run_does_not_go_on_with_other_data(
    run: Run, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data, out = make_data_folder(tmp_path / "data"), tmp_path / "run"
    settings = ["weights=none", "input.workers=0", "input.max_short_side=64", "input.min_short_side=64"]
    options = [f"--set={setting}" for setting in settings]
    assert run("train", "--data", data, "--out", out, "--device", "cpu", *TINY, *options).code == 0
    for split in ("train", "val"):
        path = data / "annotations" / f"instances_{split}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
    assert message in run("train", "--resume", "--out", out, "--device", "cpu").error_line()


def test_a_run_folder_whose_name_is_no_text_can_be_gone_on_with(run: Run, tmp_path: Path) -> None:
    out = f"{tmp_path}/run\udcff"
    assert run("train", "--device", "cpu", "--out", out, *TINY_SHAPES).code == 0
    ended = run("train", "--device", "cpu", "--out", out, "--resume")
    assert ended.code == 0, ended.stderr


@pytest.mark.parametrize("where", ["file/run", "dangling", "loop", "/proc/nothing/run", "a" * 300])
def test_a_place_where_no_folder_can_be_is_one_line(run: Run, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "run")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    run("train", "--device", "cpu", "--out", tmp_path / where, *TINY_SHAPES).error_line()
    assert sorted(tmp_path.iterdir()) == before


def test_metrics_that_are_no_text_are_named_and_hide_no_other_run(run: Run, trained_run: Path, tmp_path: Path) -> None:
    for name in ("sound", "damaged"):
        shutil.copytree(trained_run, tmp_path / name)
    metrics = tmp_path / "damaged" / "metrics.jsonl"
    metrics.write_bytes(b"\xff\xd8\xff\xe0\n\xff\n")
    listed = run("runs", "list", tmp_path)
    assert listed.code == 0
    assert "sound" in listed.stdout
    assert f"{metrics} holds no record of a training" in listed.stdout + listed.stderr
    for command in (("runs", "show"), ("report",)):
        assert f"{metrics} holds no record of a training" in run(*command, metrics.parent).error_line()


@pytest.mark.parametrize("name", ["recipe.json", "categories.json"])
def test_a_file_of_a_run_that_says_something_else_is_named(
    run: Run, trained_run: Path, tmp_path: Path, name: str
) -> None:
    damaged = Path(shutil.copytree(trained_run, tmp_path / "run"))
    (damaged / name).write_text("[1]")
    assert run("eval", damaged).error_line().startswith(f"{damaged / name}: ")


def test_a_run_without_checkpoints_that_has_weights_is_not_to_be_deleted(
    run: Run, trained_run: Path, tmp_path: Path
) -> None:
    kept = Path(shutil.copytree(trained_run, tmp_path / "run"))
    shutil.rmtree(kept / "checkpoints")
    assert run("train", "--resume", "--out", kept).error_line().endswith("start it again in another folder")
    assert (kept / "model.safetensors").is_file()
