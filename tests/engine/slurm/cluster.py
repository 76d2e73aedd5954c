"""A cluster of one machine, made of stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.slurm import commands


class Cluster:
    """The stand-in's folder, see commands.py, and what happens to its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        text = Path(commands.__file__).read_text()
        for name in commands.NAMES:
            (folder / name).write_text(f"#!{sys.executable}\n{text}")
            (folder / name).chmod(0o755)

    @classmethod
    def on_path(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
        """With its commands found first in this test."""
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return cls(folder)

    @property
    def jobs(self) -> list[str]:
        """Numbers of all that were submitted."""
        return sorted(path.stem for path in self.folder.glob("*.sh"))

    def hold(self) -> None:
        """Let jobs wait from now on."""
        (self.folder / "hold").touch()

    def start(self, number: str) -> None:
        """Run a job that waited, to its end."""
        subprocess.run([self.folder / "slurmd", number], check=True)

    def state(self, number: str) -> str:
        return (self.folder / f"{number}.state").read_text()

    def end(self, number: str, state: str) -> None:
        """Slurm's word for the job."""
        (self.folder / f"{number}.state").write_text(state)

    def signal(self, number: str, which: int) -> None:
        """As Slurm does: to the job's first process alone, but a kill to all."""
        process = int((self.folder / f"{number}.pid").read_text())
        (os.killpg if which == signal.SIGKILL else os.kill)(process, which)
