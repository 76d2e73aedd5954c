"""`aligncli import`: a run folder from a detector that another project has trained."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from aligncli.cli import options
from aligncli.cli.outputs import require_folder
from aligncli.errors import UserError

WeightFile = Annotated[Path, typer.Argument(metavar="FILE", help="Weights: .safetensors, or .pth of tensors alone.")]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", metavar="RECIPE", help="Whose weights they are; see the retinanet_r50_torchvision ones."),
]


def import_weights(
    file: WeightFile,
    *,
    recipe: RecipeName = "retinanet_r50_torchvision",
    data: options.DataFolder = None,
    out: options.NewRun = None,
    assignments: options.Assignments = None,
    json: options.Json = False,
) -> None:
    """Make a run folder from a trained detector's weights.

    For eval, predict and analysis without training. Classes are found by name among those of --data; without
    it they are COCO's eighty.
    """
    from aligncli.catalog import load_recipe_and_parts, on_folder
    from aligncli.cli.describe import shell_path
    from aligncli.cli.render import Output
    from aligncli.overrides import parse_assignments

    chosen, parts = load_recipe_and_parts(recipe)
    if data is not None:
        chosen = on_folder(chosen, data)
    chosen = chosen.changed({**parse_assignments(assignments or []), "weights": str(file)})
    out = out or Path("runs") / f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"
    require_folder(out)
    if (out / "recipe.json").exists():
        raise UserError(f"--out {out} already holds a run: choose another folder")
    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.import_run import import_run

        imported = import_run(chosen, file, out, with_data=data is not None, parts=parts)
    output.line(f"{imported.source}, {imported.num_classes} classes")
    output.line(f"run folder: {out}")
    output.line("next:")
    output.line(f"  aligncli eval {shell_path(out)} --per-class{'' if data else ' --data FOLDER'}")
    output.line(f"  aligncli predict {shell_path(out)} IMAGE...")
    output.data({"run": str(out), "recipe": chosen.name, "source": imported.source, "classes": imported.num_classes})
