"""Workers that crash or hang end the loop, and the message names the image and where the worker was."""

from __future__ import annotations

import os
import signal
import time

import pytest

from aligncli.config import InputConfig
from aligncli.data import coco
from aligncli.data.loader import eval_loader, train_loader
from aligncli.errors import DataError

WORKERS = InputConfig(min_short_side=32, max_short_side=32, long_side=64, workers=2, timeout=3.0)


@pytest.fixture
def spoilt(folder, monkeypatch):
    """The folder's validation set, where reading val1.png does something else."""
    read = coco.read_reduced

    def spoil(act):
        def read_or_act(path, **options):
            if path.name == "val1.png":
                act()
            return read(path, **options)

        monkeypatch.setattr(coco, "read_reduced", read_or_act)
        return coco.CocoDataset(folder.config(), "val")

    return spoil


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_worker_that_dies_is_told_with_its_image(spoilt, number):
    dataset = spoilt(lambda: os.kill(os.getpid(), number))
    with pytest.raises(DataError, match=r"data workers died: worker \d at 'val1.png'.*input.workers=0") as caught:
        list(eval_loader(dataset, WORKERS, batch_size=1))
    assert ("test_worker_watch.py" in str(caught.value)) == (number == signal.SIGSEGV)  # SIGKILL leaves no time to tell


@pytest.mark.slow
def test_a_worker_that_hangs_is_told_with_its_image_and_its_stack(spoilt):
    dataset = spoilt(lambda: time.sleep(600))
    started = time.monotonic()
    with pytest.raises(DataError, match=r"data workers do not answer: .*at 'val1.png', in File \"") as caught:
        list(train_loader(dataset, WORKERS, batch_size=1, seed=0, num_batches=6))
    assert "test_worker_watch.py" in str(caught.value)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_that_lives_on_is_told_as_it_is(spoilt, workers):
    def break_down():
        raise RuntimeError("decoder broke: timed out")

    loader = eval_loader(spoilt(break_down), WORKERS.model_copy(update={"workers": workers}), batch_size=1)
    with pytest.raises(RuntimeError, match="decoder broke") as caught:
        list(loader)
    assert caught.value.__cause__ is None


def test_other_errors_are_not_taken_for_a_worker_s(spoilt):
    loader = eval_loader(spoilt(lambda: None), WORKERS.model_copy(update={"workers": 0}), batch_size=1)
    assert loader.explain(RuntimeError("shapes do not match")) is None
    assert len(list(loader)) == 3
