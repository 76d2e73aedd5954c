"""What a training runs on, for its environment.json. Importing this module imports no torch."""

import platform
from importlib.metadata import version
from typing import Any

from aligncli.environment import processor_name

PACKAGES = ("aligncli", "torch", "torchvision", "numpy", "pycocotools", "hotcoco")


def describe_environment(device: str) -> dict[str, Any]:
    """Versions and hardware, for whoever compares numbers later."""
    import torch

    on_gpu = device.startswith("cuda")
    processor = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": device,
        "hardware": torch.cuda.get_device_name(device) if on_gpu else processor,
        "threads": torch.get_num_threads(),
    }
