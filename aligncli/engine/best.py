"""The weights of the best evaluation so far, beside the newest ones.

Which evaluation that was is read off metrics.jsonl, so a resumed run, whose lines are those of one that was
never stopped, keeps the same file byte for byte.
"""

from collections.abc import Mapping

from torch import nn

from aligncli.engine.checkpoint import weights_bytes
from aligncli.engine.disk import write_file
from aligncli.engine.run_folder import RunFolder


def keep_best(run: RunFolder, model: nn.Module, metrics: Mapping[str, float], *, iteration: int) -> None:
    """Write best.safetensors if its AP is above that of every evaluation in metrics.jsonl, which it joins after this.

    The file's metadata name the iteration. An AP that is undefined (NaN) is never the best.
    """
    earlier = [record["evaluation"]["AP"] for record in run.read_metrics() if "evaluation" in record]
    if all(value is None or metrics["AP"] > value for value in earlier) and metrics["AP"] == metrics["AP"]:
        write_file(run.best_path, weights_bytes(model.state_dict(), metadata={"iteration": str(iteration)}))
