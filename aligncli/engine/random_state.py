"""Every random stream of a process: torch's on the CPU and the device, Python's and numpy's.

The package itself draws from torch's CPU stream, and data from streams of their own (data/random_stream.py);
the others are for a user's own parts. The state holds tensors and plain values, which `weights_only` reads.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Start every stream anew."""
    torch.manual_seed(seed)  # every device's, too
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (the global stream is what a user's own part may draw from)


def random_state(device: str) -> dict[str, Any]:
    """Where every stream stands."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if torch.device(device).type == "cuda" else {})


def restore_random_state(state: Mapping[str, Any], device: str) -> None:
    """Go back to `random_state`'s; the device's own is left alone where the state is of another kind of device."""
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in state and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
