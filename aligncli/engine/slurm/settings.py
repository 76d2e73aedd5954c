"""What one training asks of Slurm: `--slurm KEY=VALUE` arguments, as sbatch's options.

The defaults are for one row of the paper: 90,000 iterations of 16 images on one GPU. Imports no torch.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from aligncli.errors import UserError

EXAMPLE = "--slurm partition=gpu"
MINIMUM = {"gpus_per_node": 0}  # of whole numbers; 1 for all others
OF_A_PROCESS = ("gpus_per_node", "cpus_per_task", "mem_gb")
OF_SBATCH = ("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude", "comment")
OF_SBATCH += ("mail_type", "mail_user", "wckey")


@dataclass(frozen=True)
class SlurmSettings:
    """What one training gets. Where nothing is said of text, Slurm's own default holds.

    Args:
        gpus_per_node: a training uses one; 0 trains on CPUs. gres: where it names the kind of GPU, as in
            `gpu:a100:1`, it replaces gpus_per_node.
        cpus_per_task: for workers and threads. mem_gb: of the node's memory.
        timeout_min: after which Slurm ends the job; the training goes on in another.
        signal_delay_s: how long before that the training is told to stop: a step and a checkpoint's writing.
        setup: a shell command to run before the training, as in `module load cuda`.
        reservation, wckey and the rest: sbatch's options of that name.
    """

    gpus_per_node: int = 1
    cpus_per_task: int = 8
    mem_gb: float = 64.0
    timeout_min: int = 3 * 24 * 60
    signal_delay_s: int = 180
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""
    nodelist: str = ""
    exclude: str = ""
    reservation: str = ""
    comment: str = ""
    mail_type: str = ""
    mail_user: str = ""
    wckey: str = ""
    setup: str = ""

    @property
    def device(self) -> str:
        """What a training runs on, by name: one that asked for a GPU and sees none fails instead of taking days."""
        return "cuda" if self.gpus_per_node or self._gres_names_gpus else "cpu"

    @property
    def _gres_names_gpus(self) -> bool:
        return "gpu" in self.gres

    def parameters(self, *, machines: int = 1, requeue: bool = False) -> dict[str, object]:
        """Arguments of submitit's `update_parameters`; `requeue` lets a job go back into the queue as itself."""
        # Since Slurm 22.05 srun does not take the CPUs over from sbatch, and gives one.
        of_srun = [f"--cpus-per-task={self.cpus_per_task}"]
        asked: dict[str, object] = {
            "nodes": machines,
            "tasks_per_node": 1,
            "cpus_per_task": self.cpus_per_task,
            "mem_gb": self.mem_gb,
            "timeout_min": self.timeout_min,
            "slurm_signal_delay_s": self.signal_delay_s,
            "slurm_srun_args": [*of_srun, "--open-mode=append"] if requeue else of_srun,
        }
        if self.gpus_per_node and not self._gres_names_gpus:
            asked["gpus_per_node"] = self.gpus_per_node
        asked |= {f"slurm_{name}": getattr(self, name) for name in OF_SBATCH if getattr(self, name)}
        if self.setup:
            asked["slurm_setup"] = [self.setup]
        # Requeued by Slurm, a job starts again under the same number while submitit counts it as ended: a launcher
        # that waits for jobs submits a new one instead.
        further: dict[str, object] = {"requeue" if requeue else "no-requeue": True}
        if self.reservation:
            further["reservation"] = self.reservation
        return asked | {"slurm_additional_parameters": further}


def parse_settings(assignments: Sequence[str], *, processes: int = 1) -> SlurmSettings:
    """`["partition=gpu", "mem_gb=32"]` as settings; a key given twice keeps its last value.

    What is not given of GPUs, CPUs and memory is the default times the `processes` on a machine. Raises UserError
    that names the nearest key, or what the value must be.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(SlurmSettings)}
    values: dict[str, int | float | str] = {key: processes * getattr(SlurmSettings, key) for key in OF_A_PROCESS}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not (key and equals and text):
            raise UserError(f"cannot read --slurm {assignment!r}: expected KEY=VALUE, as in {EXAMPLE}")
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(defaults)}"
            raise UserError(f"--slurm knows no key {key!r}: {hint}")
        values[key] = _parse_value(key, text, type(defaults[key]))
    return SlurmSettings(**values)  # pyright: ignore[reportArgumentType]


def _parse_value(key: str, text: str, kind: type) -> int | float | str:
    if kind is str:
        return text
    minimum = MINIMUM.get(key, 1)
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not minimum <= value < float("inf"):
        number = "a whole number" if kind is int else "a number"
        raise UserError(f"--slurm {key}={text}: expected {number} from {minimum} up")
    return value
