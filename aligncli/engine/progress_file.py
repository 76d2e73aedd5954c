"""How far a training is, for who watches its folder: `progress.json`, renewed at most once a second.

metrics.jsonl holds no times, so that equal runs are equal files; what a clock or this machine decides is here.
A process that was killed leaves its last words: `is_alive` tells whether more will come.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from aligncli.config import Recipe
from aligncli.engine.interrupt import Interrupted
from aligncli.engine.reporter import Reporter
from aligncli.engine.run_folder import RunFolder, read_json, reading
from aligncli.errors import CheckpointError, first_line
from aligncli.plain import only_finite

SECONDS_BETWEEN_WRITES = 1.0
SILENCE = 900.0  # seconds without a word after which a training is taken for dead, or for hanging


@dataclass(frozen=True)
class Progress:
    """A training's last words.

    Args:
        stage: "training", "evaluating", "finished", "stopped" (on request, with a checkpoint) or "failed".
        done, total: of the stage: iterations, or images evaluated.
        iteration: optimizer steps so far; of `iterations`.
        images_per_second, eta_seconds: of the training since it began or was resumed; NaN before the first step.
        memory: bytes, the most that were in use; NaN where it cannot be known.
        seconds: the training's, over all its starts.
        reason: of a failure, one line.
        host, process: where it runs.
    """

    stage: str
    done: int
    total: int
    iteration: int
    iterations: int
    images_per_second: float
    eta_seconds: float
    memory: float
    seconds: float
    reason: str
    host: str
    process: int

    @property
    def has_ended(self) -> bool:
        """Whether the process itself said so."""
        return self.stage in ("finished", "stopped", "failed")


class ProgressFile:
    """The engine's Reporter that writes the file and passes all on."""

    def __init__(self, run: RunFolder, reporter: Reporter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = run.progress_path
        self._reporter = reporter
        self._clock = clock
        self._started = clock()
        self._written = -float("inf")
        self._before = _seconds_before(run)
        nan = float("nan")
        self._now = Progress("training", 0, 0, 0, 0, nan, nan, nan, 0.0, "", platform.node(), os.getpid())

    def message(self, text: str) -> None:
        """See Reporter."""
        self._reporter.message(text)

    def start(self, *, iterations: int, first: int, recipe: Recipe, num_parameters: int, num_images: int) -> None:
        """See Reporter."""
        self._set(done=first, total=iterations, iteration=first, iterations=iterations)
        self._write()
        self._reporter.start(
            iterations=iterations, first=first, recipe=recipe, num_parameters=num_parameters, num_images=num_images
        )

    def step(self, record: Mapping[str, float]) -> None:
        """See Reporter."""
        iteration = int(record["iteration"])
        told = {key: record[key] for key in ("images_per_second", "eta_seconds", "memory")}
        self._set(stage="training", done=iteration, total=self._now.iterations, iteration=iteration, **told)
        self._write_now_and_then()
        self._reporter.step(record)

    def evaluation(self, *, done: int, total: int) -> None:
        """See Reporter."""
        self._set(stage="evaluating", done=done, total=total)
        self._write_now_and_then()
        self._reporter.evaluation(done=done, total=total)

    def evaluated(self, *, iteration: int, metrics: Mapping[str, float]) -> None:
        """See Reporter."""
        self._reporter.evaluated(iteration=iteration, metrics=metrics)

    def finish(self) -> None:
        """See Reporter."""
        self._reporter.finish()

    def end(self, stage: str, reason: str = "") -> None:
        """Write the last words."""
        self._set(stage=stage, reason=reason)
        self._write()

    def _set(self, **changes: Any) -> None:
        self._now = replace(self._now, **changes)

    def _write_now_and_then(self) -> None:
        if self._clock() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write()

    def _write(self) -> None:
        self._written = self._clock()
        now = replace(self._now, seconds=round(self._before + self._written - self._started, 1))
        temporary = self._path.with_name(self._path.name + ".tmp")
        with suppress(OSError):  # a full disk is for checkpoints and metrics to tell: nobody needs this file
            temporary.write_text(_to_json(now), encoding="utf-8")
            temporary.replace(self._path)


@contextmanager
def kept_for_watchers(run: RunFolder, reporter: Reporter) -> Iterator[Reporter]:
    """A reporter that also keeps the run's progress file; how the block ends is how the training did."""
    progress = ProgressFile(run, reporter)
    try:
        yield progress
    except (Interrupted, KeyboardInterrupt, SystemExit):
        progress.end("stopped")
        raise
    except BaseException as error:
        progress.end("failed", first_line(error))
        raise
    progress.end("finished")


def read_progress(run: RunFolder) -> Progress | None:
    """The last words of a training; None where it never wrote any. Raises CheckpointError where they are garbled."""
    if not run.progress_path.is_file():
        return None
    with reading(run.progress_path):
        values = {key: math.nan if value is None else value for key, value in read_json(run.progress_path).items()}
        return TypeAdapter(Progress).validate_python(values)


def is_alive(run: RunFolder, progress: Progress) -> bool:
    """Whether more will come: a long silence means no, and on this machine the process is asked for as well."""
    if progress.has_ended or time.time() - run.progress_path.stat().st_mtime > SILENCE:
        return False
    asks = progress.host == platform.node() and os.name == "posix"  # on Windows, os.kill would end it
    return not asks or _exists(progress.process)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _seconds_before(run: RunFolder) -> float:
    """Of a run that is resumed, what its earlier starts took."""
    with suppress(CheckpointError):
        before = read_progress(run)
        return before.seconds if before else 0.0
    return 0.0


def _to_json(progress: Progress) -> str:
    return json.dumps(only_finite(asdict(progress)), indent=2) + "\n"
