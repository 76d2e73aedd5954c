"""Weight files of any project: tensors by name, and never code.

PyTorch's own format is a pickle. It is read with `weights_only`, which restores tensors and plain containers
and runs nothing; a file that needs more is refused, with the way to convert it where it can be trusted.
"""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from aligncli.engine.checkpoint import load_weights
from aligncli.errors import CheckpointError, first_line

PICKLES = (".pkl", ".pickle")
SAFETENSORS = ".safetensors"
TORCH_FILES = (".pth", ".pt", ".bin")
WRAPPERS = ("state_dict", "model_state_dict", "model")  # timm and Lightning; our users; detectron2 and torchvision
PARALLEL = "module."  # what DistributedDataParallel puts before every name


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .bin file, without wrappers around them.

    Raises CheckpointError: missing, damaged, without tensors, or only to be read by running code from it.
    """
    require_file(path)
    return load_weights(path) if path.suffix == SAFETENSORS else _tensors(_read_torch_file(path), path)


def require_file(path: Path) -> None:
    """Raises CheckpointError where there is no such file, or its name says that `read_weights` would refuse it."""
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"weights {path} are a pickle, and reading one runs code from it, which aligncli never does; if you "
            'trust it, convert it once: python -c "import pickle, sys, torch; x = pickle.load(open(sys.argv[1], '
            "'rb'), encoding='latin1')['model']; torch.save({k: torch.as_tensor(v) for k, v in x.items()}, "
            f'sys.argv[2])" {path} {path.with_suffix(".pth")}'
        )
    if path.suffix not in (SAFETENSORS, *TORCH_FILES):
        raise CheckpointError(
            f"weights {str(path)!r}: expected none, shapes, imagenet, or a file that ends in {SAFETENSORS} or "
            f"{', '.join(TORCH_FILES)}"
        )
    if not path.is_file():
        what = "are a folder" if path.is_dir() else "do not exist"
        raise CheckpointError(
            f"weights {path} {what}: expected a file that ends in {SAFETENSORS} or {', '.join(TORCH_FILES)}"
        )


def _read_torch_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"weights {path} are damaged, or hold more than tensors, which only running code from the file could "
            "restore, and aligncli never does; if you trust it, save its state dict alone, once: "
            'python -c "import sys, torch; x = torch.load(sys.argv[1], weights_only=False); '
            f"torch.save(x['model'], sys.argv[2])\" {path} {path.with_name(path.stem + '-weights.pth')}"
        ) from error
    except Exception as error:
        raise CheckpointError(f"weights {path} cannot be read: {first_line(error)}") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file holds, itself or in a wrapper."""
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        wrapped = next((content[name] for name in WRAPPERS if name in content), None)
        if wrapped is None:
            break
        content = wrapped
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"weights {path} hold no tensors by name: expected a state dict, alone or as 'state_dict'"
        )
    prefix = PARALLEL if all(name.startswith(PARALLEL) for name in tensors) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
