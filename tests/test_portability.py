"""What can be checked of Windows and macOS without them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aligncli.boxes import to_float64
from aligncli.cli import app
from aligncli.engine.inference import check_device
from aligncli.errors import DeviceError

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(path for name in ("aligncli", "aligncli_ext", "recipes") for path in (REPOSITORY / name).rglob("*.py"))

# Other packages know their platform; they are imported before anything is taken away, and the hook asks ours alone.
IMPORT_ALL_AS_ON_WINDOWS = """
import builtins, importlib, os, pkgutil, signal
import matplotlib.pyplot, prompt_toolkit, rich.progress, torch, torchvision, typer
import torch.distributed.elastic.multiprocessing, torch.distributed.launcher.api

builtin_import = builtins.__import__

def without_posix(name, globals=None, *rest):
    importer = (globals or {}).get("__name__", "")
    if importer.startswith("aligncli") and name in {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}:
        raise ImportError(f"{importer} imports {name}")
    return builtin_import(name, globals, *rest)

builtins.__import__ = without_posix
for module, names in (
    (signal, ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGCHLD"]),
    (signal, ["pthread_sigmask", "sigwaitinfo"]),
    (os, ["fork", "setsid", "getuid", "uname", "statvfs", "killpg", "getloadavg", "sched_getaffinity"]),
):
    for name in names:
        vars(module).pop(name, None)

import aligncli, aligncli_ext
count = 0
for package in (aligncli, aligncli_ext):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
            count += 1
print(count)
"""

TRAIN_WITH_SPAWN = """
import multiprocessing, sys
from aligncli.cli.app import main

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main(sys.argv[1:])
"""


def test_every_module_is_imported_where_posix_is_missing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_AS_ON_WINDOWS], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 150


def test_a_run_is_trained_and_evaluated_with_spawned_workers(tmp_path: Path) -> None:
    script = tmp_path / "run_it.py"
    script.write_text(TRAIN_WITH_SPAWN)
    sizes = {"schedule.iterations": 2, "schedule.batch_size": 2, "data.num_train": 4, "data.num_val": 2}
    changes = {**sizes, "input.workers": 1, "weights": "none"}
    options = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    arguments = ["train", "--device", "cpu", "--threads", "1", "--no-report", "--out", str(tmp_path / "run"), *options]
    ended = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "evaluation.json").is_file()


def _calls() -> Iterator[tuple[str, str, set[str | None]]]:
    """Every call `owner.function(...)` in the package: where, as written, and its keywords."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = f"{path.relative_to(REPOSITORY)}:{node.lineno}"
                yield place, ast.unparse(node.func), {keyword.arg for keyword in node.keywords}


def test_paths_are_pathlibs() -> None:
    """Two functions of `os.path` have no twin there."""
    allowed = ("os.path.normpath", "os.path.realpath")
    assert [place for place, name, _ in _calls() if name.startswith("os.path.") and name not in allowed] == []


def test_text_is_read_and_written_as_utf8() -> None:
    """Windows' own default is another encoding."""
    texts = [(place, words) for place, name, words in _calls() if name.endswith((".read_text", ".write_text"))]
    assert len(texts) > 20
    assert [place for place, words in texts if "encoding" not in words] == []


def test_a_missing_apple_gpu_is_one_clear_line() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is one here")
    with pytest.raises(
        DeviceError, match=r"^device 'mps' cannot be used here \(this PyTorch finds no GPU of Apple's\)"
    ):
        check_device("mps")


def test_float64_is_computed_on_the_cpu_for_apples_gpus() -> None:
    on_cpu = torch.tensor([1.5])
    on_gpu = SimpleNamespace(device=SimpleNamespace(type="mps"), cpu=lambda: on_cpu)
    assert to_float64(on_gpu).dtype == torch.float64  # type: ignore[arg-type]
    assert to_float64(on_cpu.bfloat16()).dtype == torch.float64


@pytest.mark.parametrize(("platform", "told"), [("darwin", True), ("linux", False), ("win32", False)])
def test_on_a_mac_missing_operators_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch, platform: str, told: bool) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(app, "let_missing_operators_run_on_the_cpu", lambda: asked.append(True))
    with pytest.raises(SystemExit):
        app.main(["--version"])
    assert bool(asked) is told
