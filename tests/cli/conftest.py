"""A command line run in this process, a data folder made in code, and one tiny trained run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from aligncli.cli.app import main
from tests.cli.command_line import TINY_SHAPES, Ended, Run, make_data_folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `aligncli ARGUMENTS` through its real entry point."""

    def run_main(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Ended(exit_.value.code, captured.out, captured.err)

    return run_main


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A sound COCO folder of two classes."""
    return make_data_folder(tmp_path / "data")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two iterations on shapes."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    with _unchanged_process(), pytest.raises(SystemExit) as exit_:
        main(["train", "--device", "cpu", "--out", str(run_dir), *TINY_SHAPES])
    assert exit_.value.code == 0
    return run_dir


@pytest.fixture(autouse=True)
def same_process() -> Iterator[None]:
    """What a command sets for its whole process, which goes on after a test, is taken back."""
    with _unchanged_process():
        yield


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """`--threads`, and the precision of products."""
    threads, products = torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = products
