"""Giving Slurm a job through submitit, and what is said where it cannot be given."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligncli.errors import UserError

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit import Job as Handle


def slurm_executor(folder: Path, parameters: Mapping[str, Any]) -> AutoExecutor:
    """submitit's, with its files in `folder`. Raises UserError where there is no submitit or no Slurm."""
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise UserError("--launcher slurm needs submitit: pip install 'aligncli[slurm]'") from None
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("--launcher slurm needs Slurm's sbatch and srun: run it on a login node of the cluster")
    # It writes to stdout, which is for results; that sacct failed is seen from what it does not say.
    logging.getLogger("submitit").setLevel(logging.CRITICAL)
    executor = AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(**parameters)
    return executor


def submit(executor: AutoExecutor, name: str, function: Callable[..., Any], *arguments: object) -> Handle[Any]:
    """Submit `function(*arguments)` as a job of that name. Raises UserError with sbatch's words."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import clean_env

    executor.update_parameters(name=name)
    try:
        # Inside a Slurm job, its variables would be taken for this one's options. submitit repeats sbatch's words
        with clean_env(), redirect_stderr(io.StringIO()):
            return executor.submit(function, *arguments)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"sbatch refused {name}: {'; '.join(str(error).splitlines())}") from error
