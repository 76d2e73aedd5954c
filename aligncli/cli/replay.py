"""`aligncli train --replay BUNDLE`: takes the step again at which a training broke, and tells where it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aligncli.cli import options
from aligncli.cli.render import Output
from aligncli.errors import TrainingError

Bundle = Annotated[
    Path | None,
    typer.Option(
        "--replay",
        metavar="BUNDLE",
        help="Take the step again at which a run broke (RUN/replay/ITERATION); nothing is trained or written.",
        show_default=False,
    ),
]


def replay_bundle(bundle: Path, *, data: Path | None, device: str, code: Path | None, output: Output) -> None:
    """Show the step of a bundle. Raises TrainingError where it breaks again, and other UserErrors."""
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.replay import replay

        parts = options.read_code(code)
    with output.waiting("taking the step again"):
        taken = replay(bundle, data=data, device=None if device == "auto" else device, parts=parts)
    names = dict(taken.images)
    equal = f"{taken.as_recorded} of {taken.num_steps} steps have the recorded losses bit for bit"
    fields = {
        "happened": taken.happened,
        "now": taken.describe(),
        "culprit": taken.culprit,
        "as recorded": equal if taken.as_recorded == taken.num_steps else f"{equal}: other code, threads or hardware",
    }
    output.fields(fields)
    output.table(["loss", ""], [(name, f"{value:g}") for name, value in taken.losses.items()])
    rows = [(str(image_id), names.get(image_id, "")) for image_id in taken.image_ids]
    output.table(["image id", "file name"], rows, text_columns=2)
    output.data(
        {
            "iteration": taken.iteration,
            "happened": taken.happened,
            "finite": taken.finite,
            "culprit": taken.culprit,
            "losses": {name: str(value) for name, value in taken.losses.items()},
            "images": [{"id": image_id, "file_name": names.get(image_id)} for image_id in taken.image_ids],
            "steps": taken.num_steps,
            "steps_as_recorded": taken.as_recorded,
        }
    )
    if not taken.finite:
        raise TrainingError(f"{taken.describe()}: {taken.culprit}")
