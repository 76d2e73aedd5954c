"""`aligncli extract`: a run's backbone and neck, for other recipes to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aligncli.cli import options
from aligncli.cli.outputs import require_output

WeightFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the .safetensors file goes.")]


def extract(run: options.Run, *, out: WeightFile = Path("features.safetensors"), json: options.Json = False) -> None:
    """Write a run's backbone and neck to a file.

    Other recipes start from it with `--set weights=FILE`. The packaged `shapes` weights were made so, from
    a run of the recipe pretrain_shapes.
    """
    from aligncli.cli.render import Output

    require_output(out, ".safetensors")
    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.weights import extract_features

        num_tensors = extract_features(run, out)
    size = out.stat().st_size
    output.line(f"{out}: {num_tensors} tensors, {size / 1e6:.2f} MB; start from them with --set weights={out}")
    output.data({"weights": str(out), "tensors": num_tensors, "bytes": size})
