"""`aligncli doctor`: what this machine has, which kernels compute RoIConv on it, and what will go wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligncli.cli import options
from aligncli.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligncli.analysis.doctor import Room, Threads
    from aligncli.cli.render import Output
    from aligncli.ops.backend import NativeStatus

Build = Annotated[
    bool, typer.Option("--build", help="Build the CPU kernels now, even where that has failed before; exit 2 if not.")
]


def doctor(*, build: Build = False, json: options.Json = False) -> None:
    """Show versions, devices, kernels, room and threads, and what will go wrong.

    Exit code 2 where nothing can be trained: torchvision is missing, or was built for another torch. The native CPU
    kernels are compiled at first use with the system's C++ compiler, and kept in the cache; `--build` does that
    now. Without them the portable backend computes the same, slower. `--json` is for bug reports.
    """
    from aligncli.cli.render import Output

    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.analysis import doctor as machine
        from aligncli.ops.backend import fused_status, kernel_cache, native_status, requested_backend

        system, packages = machine.describe_platform(), machine.package_versions()
        devices, threads = machine.describe_devices(), machine.count_threads()
        disk, shared_memory = machine.measure_disk(kernel_cache()), machine.measure_shared_memory()
        torchvision = machine.check_torchvision()
        kernels, fused = native_status(build=build), fused_status()
        requested = requested_backend()
    problems = machine.find_problems(disk, shared_memory, threads)
    installed = [f"{name} {found}" for name, found in packages.items() if found]
    missing = [name for name, found in packages.items() if not found]
    output.fields(
        {
            **{name: found or "none" for name, found in system.items()},
            "packages": ", ".join(installed) + (f"; without {', '.join(missing)}" if missing else ""),
            "devices": ", ".join(devices),
            "threads": _describe_threads(threads),
            "operators": torchvision.detail,
            **{f"room for {room.what}": _describe_room(room) for room in (*disk, shared_memory) if room},
        }
    )
    backends = _show_backends(output, kernels, fused, requested)
    output.data(
        {
            **system,
            "packages": packages,
            "devices": devices,
            "threads": asdict(threads),
            "torchvision_operators": asdict(torchvision),
            "disk": [asdict(room) for room in disk],
            "shared_memory": asdict(shared_memory) if shared_memory else None,
            "requested_backend": requested,
            "backends": backends,
            "problems": [*filter(None, [torchvision.problem]), *problems],
        }
    )
    cpu = kernels[0]
    if not (cpu.available or build):
        output.note("build the CPU kernels now, or try again, with: aligncli doctor --build")
    for problem in problems:
        output.note(problem)
    if build and not cpu.available:
        raise UserError(f"the CPU kernels cannot be built: {cpu.detail}")
    if torchvision.problem:
        raise UserError(torchvision.problem)


def _show_backends(
    output: Output, kernels: Sequence[NativeStatus], fused: Sequence[NativeStatus], requested: str
) -> list[dict[str, Any]]:
    """Print who computes RoIConv; returns the rows."""
    backends: list[dict[str, Any]] = [
        *({"backend": "native", **asdict(found)} for found in kernels),
        *({"backend": "fused", **asdict(found)} for found in fused),
        {"backend": "portable", "device": "any", "available": True, "detail": "plain PyTorch"},
        {"backend": "reference", "device": "any", "available": True, "detail": "the specification, slow"},
    ]
    output.heading("RoIConv backends", "" if requested == "auto" else f"ALIGNCLI_ROI_CONV forces {requested}")
    for row in backends:
        has = "yes" if row["available"] else "no "
        output.line(f"{row['backend']:9}  {row['device']:6}  {has}  {row['detail']}")
    return backends


def _describe_threads(threads: Threads) -> str:
    return f"{threads.torch} of torch's, on {threads.usable:g} of {threads.processors} processors"


def _describe_room(room: Room) -> str:
    return f"{room.free / 1e9:,.1f} of {room.total / 1e9:,.1f} GB free in {room.path}"
