"""Checkpoints are whole or absent, two are kept, and what cannot be read says so in one line."""

import pickle

import pytest
import torch
from torch import nn

from aligncli.engine.checkpoint import load_checkpoint, load_weights, restore_model, save_checkpoint, save_weights
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import CheckpointError


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


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"a": 1})])
def test_a_damaged_state_is_named(run, content):
    folder = save_checkpoint(run, nn.Linear(1, 1), iteration=3, state={"a": torch.ones(2)})
    (folder / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="0000003") as raised:
        load_checkpoint(run, device="cpu")
    assert len(str(raised.value)) < 600


class Payload:
    def __reduce__(self):
        import os

        return os.system, ("touch PAYLOAD_RAN",)


def test_a_pickle_with_a_payload_is_refused_and_leaves_no_trace(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save_checkpoint(run, nn.Linear(1, 1), iteration=3, state={})
    torch.save({"optimizer": Payload()}, folder / "state.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(run, device="cpu")
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
