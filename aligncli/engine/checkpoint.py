"""Checkpoints: weights as safetensors, training state beside them, written whole or not at all.

`checkpoints/0000500/` holds `model.safetensors` and `state.pt` after 500 iterations, and their sha256 sums in
`manifest.sha256`. Only what these confirm is loaded or counted: the two newest sound ones are kept, and a
damaged one is passed over for the one before it. Loading never runs code.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from aligncli.engine.disk import flush, is_sound, remove_folder, remove_litter, require_sound, write_file, write_folder
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import CheckpointError, first_line

KEPT_CHECKPOINTS = 2
WEIGHTS, STATE = "model.safetensors", "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A training state after `iteration` optimizer steps; `skipped` has a line for each newer one that is damaged."""

    iteration: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    skipped: tuple[str, ...] = ()


def save_checkpoint(run: RunFolder, model: nn.Module, *, iteration: int, state: Mapping[str, Any]) -> Path:
    """Write a checkpoint and the run's `model.safetensors`; returns the checkpoint's folder.

    Raises TrainingError where there is no room; the checkpoints before are then as they were.
    """
    folder = run.checkpoints_path / f"{iteration:07d}"
    remove_litter(run.checkpoints_path)
    if run.metrics_path.exists():
        flush(run.metrics_path)  # or a power cut could leave a checkpoint without the lines up to it
    files = {WEIGHTS: weights_bytes(model.state_dict()), STATE: state_bytes(state)}
    write_folder(folder, files)
    kept = 0
    for old in reversed(checkpoint_folders(run)):
        if kept < KEPT_CHECKPOINTS and is_sound(old, (WEIGHTS, STATE)):
            kept += 1
        else:
            remove_folder(old)
    write_file(run.weights_path, files[WEIGHTS])
    return folder


def load_checkpoint(run: RunFolder, *, device: str) -> Checkpoint:
    """The newest sound checkpoint. Raises CheckpointError where there is none."""
    skipped: list[str] = []
    for folder in reversed(checkpoint_folders(run)):
        try:
            weights, state = load_folder(folder, device=device)
        except CheckpointError as error:
            skipped.append(f"checkpoint {folder} is damaged and not used: {error}")
        else:
            return Checkpoint(int(folder.name), weights, state, tuple(skipped))
    if skipped:
        raise CheckpointError(
            f"{run.root} holds no sound checkpoint to resume from, start it again in another folder; {skipped[0]}"
        )
    if run.weights_path.is_file():  # it got somewhere: nothing of it is to be deleted
        raise CheckpointError(f"{run.root} holds no checkpoint to resume from: start it again in another folder")
    raise CheckpointError(f"{run.root} holds no checkpoint to resume from: delete it and start without --resume")


def load_folder(folder: Path, *, device: str, others: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and training state that `folder` holds, with `others` in its manifest. Raises CheckpointError."""
    require_sound(folder, (WEIGHTS, STATE, *others))
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is refused anyway
            state = torch.load(folder / STATE, map_location=device, weights_only=True)
    except Exception as error:  # without torch's words, which advise to run whatever code is in it
        raise CheckpointError(f"{STATE} cannot be read without running code") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{STATE} holds a {type(state).__name__}: expected a training state")
    return load_weights(folder / WEIGHTS, device=device), state


def checkpoint_folders(run: RunFolder) -> list[Path]:
    """All checkpoints, sound or not, oldest first."""
    folders = (folder for folder in run.checkpoints_path.glob("[0-9]*") if folder.name.isdecimal())
    return sorted(folders, key=lambda folder: int(folder.name))


def weights_bytes(weights: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> bytes:
    """Tensors in the safetensors format, on the CPU; those that share memory, such as tied weights, one by one."""
    seen: set[int] = set()
    alone: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        address = tensor.untyped_storage().data_ptr()
        alone[name] = (tensor.clone() if address in seen else tensor).contiguous()
        seen.add(address)
    return save(alone, metadata)


def state_bytes(state: Mapping[str, Any]) -> bytes:
    """Tensors and plain values in torch's format, which `weights_only` reads."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    return file.getvalue()


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state as safetensors; see `write_weights`."""
    write_weights(model.state_dict(), path)


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    # Not save_file: its files are readable by their owner alone, and run folders are shared
    write_file(path, weights_bytes(weights))


def load_weights(path: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises CheckpointError."""
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"weights {path} do not exist: expected a .safetensors file")
    try:
        if not _is_unicode(path):  # safetensors takes no other paths
            return {name: tensor.to(device) for name, tensor in load(path.read_bytes()).items()}
        return load_file(path, device=device)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"weights {path} are no safetensors file, or one that is damaged or cut off ({first_line(error)})"
        ) from error


def _is_unicode(path: Path) -> bool:
    """Whether a path is text, not bytes of some other encoding."""
    return all(not "\ud800" <= character <= "\udfff" for character in str(path))


def restore_model(model: nn.Module, weights: Mapping[str, Tensor], *, source: Path) -> None:
    """Load all weights into a model of the same recipe. Raises CheckpointError naming the first mismatch."""
    own = model.state_dict()
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if wrong:
        raise CheckpointError(
            f"weights in {source} do not fit the recipe's model: {len(wrong)} tensors differ, first {wrong[0]!r}"
        )
    model.load_state_dict(dict(weights))
