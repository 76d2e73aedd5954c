"""`aligncli doctor`: what this machine has, and which kernels compute RoIConv on it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Annotated, Any

import typer

from aligncli.cli import options
from aligncli.errors import UserError

Build = Annotated[
    bool, typer.Option("--build", help="Build the CPU kernels now, even where that has failed before; exit 2 if not.")
]


def doctor(*, build: Build = False, json: options.Json = False) -> None:
    """Show versions, devices and kernels.

    The native CPU kernels are compiled at first use with the system's C++ compiler, and kept in the cache;
    `--build` does that now. Without them the portable backend computes the same, slower.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.ops.backend import native_status, requested_backend

        system = _describe_system()
        kernels = native_status(build=build)
        requested = requested_backend()
    output.fields({name.replace("_", " "): _plain(value) for name, value in system.items()})
    backends = [
        *({"backend": "native", **asdict(found)} for found in kernels),
        {"backend": "portable", "device": "any", "available": True, "detail": "plain PyTorch"},
        {"backend": "reference", "device": "any", "available": True, "detail": "the specification, slow"},
    ]
    output.heading("RoIConv backends", "" if requested == "auto" else f"ALIGNCLI_ROI_CONV forces {requested}")
    for row in backends:
        has = "yes" if row["available"] else "no "
        output.line(f"{row['backend']:9}  {row['device']:6}  {has}  {row['detail']}")
    output.data({**system, "requested_backend": requested, "backends": backends})
    cpu = kernels[0]
    if build and not cpu.available:
        raise UserError(f"the CPU kernels cannot be built: {cpu.detail}")
    if not cpu.available:
        output.note("build the CPU kernels now, or try again, with: aligncli doctor --build")


def _describe_system() -> dict[str, Any]:
    from importlib.metadata import version

    import torch

    return {
        "aligncli": version("aligncli"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))],
    }


def _plain(value: object) -> str:
    match value:
        case None:
            return "none"
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)
