"""One training as a Slurm job of its own, on one machine or several: submitted, and then nobody has to wait.

The job requeues itself before its time limit (slurm/requeue.py), so nothing of it needs the command that
submitted it. `OUT/slurm/` holds the recipe that it trains, its number, and what submitit and Slurm write.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligncli.config import Recipe
from aligncli.engine.run_folder import write_json
from aligncli.engine.slurm.node import become_training
from aligncli.engine.slurm.queue import is_gone
from aligncli.engine.slurm.settings import SlurmSettings
from aligncli.engine.slurm.submit import slurm_executor, submit
from aligncli.errors import UserError


@dataclass(frozen=True)
class SubmittedTraining:
    """Its job, and where the first machine's output goes."""

    job_id: str
    log: Path


def submit_training(
    recipe: Recipe, run_dir: Path, command: Sequence[str], *, settings: SlurmSettings, machines: int
) -> SubmittedTraining:
    """Submit `command`, which has to end in the option that names its recipe, with the recipe's file added to it.

    With several machines each runs it, with `--rdzv` added too. Raises UserError where Slurm, or an earlier job
    that has not ended, is against it.
    """
    folder = run_dir / "slurm"
    record = folder / "job.json"
    parameters = settings.parameters(machines=machines, requeue=True) | {"slurm_stderr_to_stdout": True}
    executor = slurm_executor(folder, parameters)
    if record.is_file():
        earlier = json.loads(record.read_text(encoding="utf-8"))["job_id"]
        if not is_gone(earlier):
            raise UserError(
                f"Slurm job {earlier} trains into {run_dir} already: wait for it, or end it with `scancel {earlier}`"
            )
    folder.mkdir(parents=True, exist_ok=True)
    recipe_file = folder / "recipe.json"
    write_json(recipe_file, recipe.model_dump(mode="json"))
    handle = submit(executor, run_dir.name, become_training, [*command, str(recipe_file)], machines > 1)
    write_json(record, {"job_id": handle.job_id})
    return SubmittedTraining(handle.job_id, handle.paths.stdout)
