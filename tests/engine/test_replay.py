"""A step that broke can be taken again: the same images, the same losses, the same NaN, and where it comes from."""

import json
import shutil

import pytest
import torch

from aligncli.build import build_dataset
from aligncli.cli.app import main
from aligncli.engine.bundle import images_of_step, read_bundle
from aligncli.engine.replay import replay
from aligncli.engine.train import train
from aligncli.errors import CheckpointError, TrainingError
from aligncli.models.detector import Detector
from aligncli.models.fpn import FeaturePyramid
from tests.engine.processes import names
from tests.engine.test_checkpoint import FAULTS, Payload
from tests.engine.test_resume import photo_recipe, photos

BROKEN = 3  # the step that breaks


@pytest.fixture
def poison(monkeypatch):
    """Call it with an image id: whenever that image is in a batch, the pyramid's maps are NaN."""

    def set_poison(image_id: int) -> None:
        see, pyramid = Detector.forward, FeaturePyramid.forward

        def forward(self, images, targets=None):
            self.neck.poisoned = any(target["image_id"] == image_id for target in targets or [])
            return see(self, images, targets)

        def poisoned(self, features):
            return [x * torch.nan if self.poisoned else x for x in pyramid(self, features)]

        monkeypatch.setattr(Detector, "forward", forward)
        monkeypatch.setattr(FeaturePyramid, "forward", poisoned)

    return set_poison


def broken_run(recipe, run_dir, poison, *, at: int = BROKEN):
    """A run that breaks at that step; returns its bundle."""
    earlier = {image for step in range(1, at) for image in images_of_step(recipe, build_dataset(recipe, "train"), step)}
    images = images_of_step(recipe, build_dataset(recipe, "train"), at)
    poison(next(image_id for image_id, name in images if (image_id, name) not in earlier))
    with pytest.raises(TrainingError, match=rf"loss is nan.* at iteration {at} \(lr .*--replay") as raised:
        train(recipe, run_dir)
    assert "\n" not in str(raised.value)
    bundle = run_dir / "replay" / f"{at:07d}"
    assert str(bundle) in str(raised.value)
    return bundle


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({"schedule.log_every": 1}, 2),
        ({"schedule.log_every": 2}, 2),
        ({"schedule.log_every": 10}, 0),
        ({"schedule.log_every": 10, "schedule.checkpoint_every": 1}, 2),
        ({"schedule.log_every": 10, "schedule.accumulate": 2}, 0),
        ({"schedule.log_every": 10, "schedule.amp": "bf16", "input.workers": 2}, 0),
    ],
)
def test_the_step_that_broke_is_taken_again_bit_for_bit(recipe, tmp_path, poison, monkeypatch, changes, after):
    recipe = recipe.changed(changes)
    folder = broken_run(recipe, tmp_path / "run", poison)
    bundle = read_bundle(folder, device="cpu")
    assert (bundle.step.before.iteration, bundle.step.iteration) == (after, BROKEN)
    assert bundle.recipe == recipe
    taken = replay(folder)
    assert not taken.finite
    assert taken.culprit == "first output that is not finite: neck (FeaturePyramid)"
    assert (taken.as_recorded, taken.num_steps) == (BROKEN - after, BROKEN - after)
    assert sorted(taken.image_ids) == sorted(image_id for image_id, _ in bundle.images)
    assert len(taken.image_ids) == recipe.schedule.batch_size
    assert all(name == f"train_{image_id}.png" for image_id, name in bundle.images)

    monkeypatch.undo()  # the code is mended
    mended = replay(folder)
    assert mended.finite
    assert mended.as_recorded == BROKEN - after - 1
    assert mended.culprit == "every module's output and every gradient is finite"


def test_a_rate_that_is_much_too_high_breaks_weights_and_says_so(recipe, tmp_path):
    recipe = recipe.changed({"optimizer.lr": 1e12, "schedule.decay": "steps", "schedule.log_every": 5})
    with pytest.raises(TrainingError, match=r"dpm_class loss is .* iteration 2 \(lr 1\.6\d+e\+11\): lower"):
        train(recipe, tmp_path / "run")
    taken = replay(tmp_path / "run" / "replay" / "0000002")
    assert not taken.finite
    assert (taken.as_recorded, taken.num_steps) == (2, 2)
    assert taken.culprit.startswith("first output that is not finite: backbone.")


def command(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["train", *map(str, arguments)])
    captured = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, captured.out, captured.err


def test_the_command_shows_the_same_nan_on_a_folder_that_has_moved(tmp_path, poison, monkeypatch, capsys):
    recipe = photo_recipe(photos(tmp_path / "data", count=12), {"schedule.log_every": 10})
    folder = broken_run(recipe, tmp_path / "run", poison)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    code, _, error = command(capsys, "--replay", folder)
    assert code == 2
    assert f"data folder {tmp_path / 'data'} does not exist" in error

    code, out, error = command(capsys, "--replay", folder, "--data", tmp_path / "elsewhere")
    assert code == 2
    assert error.splitlines()[-1].endswith("at iteration 3: first output that is not finite: neck (FeaturePyramid)")
    assert "3 of 3 steps have the recorded losses bit for bit" in " ".join(out.split())
    images = read_bundle(folder, device="cpu").images
    assert all(f"{image_id}   " in out and name in out for image_id, name in images)

    code, out, error = command(capsys, "--replay", folder, "--data", tmp_path / "elsewhere", "--json")
    told = json.loads(out)
    assert code == 2
    assert (told["finite"], told["losses"]["adm_box"]) == (False, "nan")
    assert sorted((image["id"], image["file_name"]) for image in told["images"]) == sorted(images)

    monkeypatch.undo()
    code, out, error = command(capsys, "--replay", folder, "--data", tmp_path / "elsewhere")
    assert (code, error) == (0, "")
    assert "all losses are finite at iteration 3" in " ".join(out.split())


@pytest.mark.parametrize("more", [["quickstart"], ["--resume"], ["--out", "x"], ["--seed", 1], ["--set", "seed=1"]])
def test_a_replay_takes_everything_from_its_bundle(tmp_path, capsys, more):
    code, out, error = command(capsys, "--replay", tmp_path, *more)
    assert (code, out) == (2, "")
    assert "--replay takes all else from its bundle" in error


def test_a_damaged_bundle_or_one_with_a_payload_is_refused(recipe, tmp_path, poison, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound = broken_run(recipe, tmp_path / "run", poison)
    assert names(sound) == ["bundle.json", "manifest.sha256", "model.safetensors", "state.pt"]
    for name in names(sound):
        for number, damage in enumerate(FAULTS):
            folder = tmp_path / f"{name}-{number}"
            shutil.copytree(sound, folder)
            damage(folder / name)
            with pytest.raises(CheckpointError) as raised:
                replay(folder)
            assert str(folder) in str(raised.value)
    torch.save({"rng": Payload()}, sound / "state.pt")
    with pytest.raises(CheckpointError):
        replay(sound)
    assert not (tmp_path / "PAYLOAD_RAN").exists()


def test_no_room_for_the_bundle_does_not_hide_what_happened(recipe, tmp_path, poison, monkeypatch):
    def full(*arguments):
        raise TrainingError("no room for it")

    monkeypatch.setattr("aligncli.engine.bundle.write_folder", full)
    poison(1)
    with pytest.raises(TrainingError, match=r"loss is nan.*there is no replay bundle of it: no room for it"):
        train(recipe, tmp_path / "run")
