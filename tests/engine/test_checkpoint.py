"""Checkpoints are whole or absent, two sound ones are kept, and one that is damaged is passed over."""

import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from aligncli.engine.checkpoint import load_checkpoint, load_weights, restore_model, save_checkpoint, save_weights
from aligncli.engine.disk import MANIFEST, write_folder
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import CheckpointError, TrainingError
from tests.engine.processes import Process, names


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def test_what_was_saved_is_loaded(run):
    model = nn.Linear(3, 2)
    save_checkpoint(run, model, iteration=7, state={"optimizer": {"lr": 0.5, "m": torch.ones(2)}})
    loaded = load_checkpoint(run, device="cpu")
    assert loaded.iteration == 7
    assert torch.equal(loaded.weights["weight"], model.weight)
    assert loaded.state["optimizer"]["lr"] == 0.5


def test_the_two_newest_are_kept_and_the_newest_is_loaded(run):
    for iteration in (5, 10, 100, 20):
        save_checkpoint(run, nn.Linear(1, 1), iteration=iteration, state={})
    assert sorted(path.name for path in run.checkpoints_path.iterdir()) == ["0000020", "0000100"]
    assert load_checkpoint(run, device="cpu").iteration == 100


def test_a_partly_written_checkpoint_is_never_seen(run, monkeypatch):
    save_checkpoint(run, nn.Linear(1, 1), iteration=1, state={})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(run, nn.Linear(1, 1), iteration=2, state={})
    assert load_checkpoint(run, device="cpu").iteration == 1


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def missing(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flipped(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = ("model.safetensors", "state.pt", MANIFEST)
FAULTS = (truncated, emptied, lengthened, missing, a_folder, flipped)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", FAULTS)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_with_one_line(run, name, damage):
    for iteration in (5, 10):
        save_checkpoint(run, nn.Linear(1, 1), iteration=iteration, state={"n": iteration})
    damage(run.checkpoints_path / "0000010" / name)
    loaded = load_checkpoint(run, device="cpu")
    assert (loaded.iteration, loaded.state["n"]) == (5, 5)
    (line,) = loaded.skipped
    assert "0000010 is damaged and not used" in line
    assert "\n" not in line
    damage(run.checkpoints_path / "0000005" / name)
    with pytest.raises(CheckpointError, match=r"no sound checkpoint.*another folder.*0000010") as raised:
        load_checkpoint(run, device="cpu")
    assert "\n" not in str(raised.value)


def test_any_byte_of_a_small_checkpoint_that_changes_is_noticed(run):
    folder = save_checkpoint(run, nn.Linear(1, 1), iteration=1, state={})
    draw = random.Random(0)
    for name in FILES:
        content = (folder / name).read_bytes()
        for _ in range(100):
            changed = bytearray(content)
            changed[draw.randrange(len(content))] ^= draw.randrange(1, 256)
            (folder / name).write_bytes(changed)
            with pytest.raises(CheckpointError):
                load_checkpoint(run, device="cpu")
        (folder / name).write_bytes(content)
    assert load_checkpoint(run, device="cpu").iteration == 1


def test_a_damaged_checkpoint_does_not_count_among_the_two_that_are_kept(run):
    for iteration in (5, 10):
        save_checkpoint(run, nn.Linear(1, 1), iteration=iteration, state={})
    flipped(run.checkpoints_path / "0000010" / "state.pt")
    save_checkpoint(run, nn.Linear(1, 1), iteration=15, state={})
    assert names(run.checkpoints_path) == ["0000005", "0000015"]
    shutil.rmtree(run.checkpoints_path / "0000015")
    assert load_checkpoint(run, device="cpu").iteration == 5


class Payload:
    def __reduce__(self):
        return os.system, ("touch PAYLOAD_RAN",)


FORCED = """
import sys
from pathlib import Path
from aligncli.engine.checkpoint import load_checkpoint
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import CheckpointError
try:
    load_checkpoint(RunFolder(Path(sys.argv[1])), device="cpu")
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_a_payload_is_refused_and_leaves_no_trace(run, tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    folder = save_checkpoint(run, nn.Linear(1, 1), iteration=3, state={})
    torch.save({"optimizer": Payload()}, tmp_path / "state.pt", _use_new_zipfile_serialization=not legacy)
    files = {name: (folder / name).read_bytes() for name in FILES[:1]}
    write_folder(folder, files | {"state.pt": (tmp_path / "state.pt").read_bytes()})  # the manifest confirms it
    with pytest.raises(CheckpointError, match="cannot be read without running code"):
        load_checkpoint(run, device="cpu")
    if not legacy:  # torch has a variable that lets loads fall back to running code
        forced = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", FORCED, run.root]
        ended = subprocess.run(command, env=os.environ | forced, capture_output=True, text=True, check=True)
        assert "cannot be read without running code" in ended.stdout
    (tmp_path / "weights.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        load_weights(tmp_path / "weights.safetensors")
    assert not (tmp_path / "PAYLOAD_RAN").exists()


def test_nothing_to_resume_from_is_said(run):
    with pytest.raises(CheckpointError, match="without --resume"):
        load_checkpoint(run, device="cpu")


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    save_weights(nn.Linear(3, 2), tmp_path / "a.safetensors")
    weights = load_weights(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="'weight'"):
        restore_model(nn.Linear(4, 2), weights, source=tmp_path)
    with pytest.raises(CheckpointError, match="'bias'"):
        restore_model(nn.Linear(3, 2, bias=False), weights, source=tmp_path)


def save_large(run: RunFolder) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_checkpoint(run, nn.Linear(200, 200), iteration=2, state={})
    except TrainingError as error:
        print(error)
        sys.exit(2)


def test_a_checkpoint_without_room_leaves_the_one_before_and_no_litter(run, tmp_path):
    save_checkpoint(run, nn.Linear(1, 1), iteration=1, state={})
    weights = run.weights_path.read_bytes()

    process = Process(partial(save_large, run), tmp_path / "log")
    assert process.wait() == 2
    assert (
        f"no room for {run.checkpoints_path / '0000002'}: 16" in process.log.read_text()
    )  # 200 x 200 x 4 bytes and some
    assert load_checkpoint(run, device="cpu").iteration == 1
    assert names(run.checkpoints_path) == ["0000001"]
    assert run.weights_path.read_bytes() == weights


def save_for_ever(run: RunFolder, reported: Path, first: int) -> None:
    """Checkpoints as fast as the disk takes them, each reported once it is saved."""
    model = nn.Linear(100, 100)
    with reported.open("a", buffering=1) as file:
        for iteration in range(first, first + 100_000):
            nn.init.constant_(model.weight, iteration)
            save_checkpoint(run, model, iteration=iteration, state={"iteration": iteration})
            file.write(f"{iteration}\n")


def test_killed_at_50_random_moments_of_saving_the_newest_reported_checkpoint_is_there(run, tmp_path):
    reported = tmp_path / "reported"
    save_checkpoint(run, nn.Linear(100, 100), iteration=0, state={"iteration": 0})
    reported.write_text("0\n")
    draw = random.Random(time.monotonic_ns())
    litter, last = 0, 0
    for _ in range(50):
        process = Process(partial(save_for_ever, run, reported, last + 1), tmp_path / "log")
        process.wait_for(reported, f"\n{last + 1}\n")  # it is saving
        time.sleep(draw.uniform(0, 0.03))
        process.signal_all(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        litter += any(path.name.startswith(".") for path in run.checkpoints_path.iterdir())
        last = int(reported.read_text().split()[-1])
        loaded = load_checkpoint(run, device="cpu")
        assert loaded.iteration in (last, last + 1)  # that one was whole, but not yet reported
        assert not loaded.skipped
        assert loaded.state["iteration"] == loaded.iteration
        assert loaded.iteration == 0 or bool((loaded.weights["weight"] == loaded.iteration).all())
        assert len(load_weights(run.weights_path)) == 2
        last = loaded.iteration
    assert litter > 0  # some kills did hit a checkpoint half written
    save_checkpoint(run, nn.Linear(1, 1), iteration=last + 1, state={})
    assert names(run.checkpoints_path) == [f"{last:07d}", f"{last + 1:07d}"]


def test_tied_weights_are_saved_and_loaded(run):
    """As a user's own part may have them."""
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    save_checkpoint(run, model, iteration=1, state={})
    weights = load_checkpoint(run, device="cpu").weights
    assert torch.equal(weights["a.weight"], weights["b.weight"])
    restore_model(model, weights, source=run.root)
