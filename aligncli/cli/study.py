"""`aligncli reproduce`, `pilot` and `ablate`: the paper's tables, ours beside its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from aligncli.cli import options, studies, study_run
from aligncli.cli.completion import complete_study

StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        autocompletion=complete_study,
        help="aligndet (Table 3), alignment (4), alignment_1x1, assignment (5), kernel (6), testdev (7), figure4; all.",
    ),
]
ScaleChoice = Annotated[
    options.Scale, typer.Option("--scale", help="small: embedded shapes, a CPU. coco: the paper's. photo: your --data.")
]
Seeds = Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Repeat with N seeds: mean and spread.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, help="Trainings side by side. Default: 1; with Slurm, its own limits."),
]
LauncherChoice = Annotated[
    options.LauncherKind, typer.Option("--launcher", help="Where trainings run: here, or as one Slurm job each.")
]
StudyFolder = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", parser=options.folder, help="Folder of the runs; the same one again goes on with them."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would be trained, and the time and memory it takes; train nothing."),
]
RoIConv = Annotated[bool, typer.Option("--roiconv", help="Table 2: one level with RoIConv on predefined anchors.")]
Download = Annotated[bool, typer.Option("--download", help="Allow ImageNet weights to be fetched.")]


def _run(
    names: Sequence[str],
    *,
    scale: ScaleChoice = options.Scale.small,
    seeds: Seeds = 1,
    data: options.DataFolder = None,
    out: StudyFolder = Path("studies"),
    jobs: Jobs = None,
    launcher: LauncherChoice = options.LauncherKind.local,
    slurm: options.SlurmOptions = None,
    device: options.Device = "auto",
    assignments: options.Assignments = None,
    download: Download = False,
    offline: options.Offline = False,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Run the studies of these names; the options are those of every command of studies."""
    download = options.may_download(download=download, offline=offline)
    asked = study_run.Asked(
        names, scale, seeds, data, out, jobs, launcher, slurm or (), device, assignments or [], download, dry_run
    )
    study_run.run_study(asked, json=json)


def _study_command(choose: Callable[..., Sequence[str]]) -> Callable[..., None]:
    """The command that runs the studies which `choose` names: its parameters, and the options of all such commands."""
    asked = inspect.signature(choose, eval_str=True).parameters
    _, *shared = inspect.signature(_run, eval_str=True).parameters.values()
    common = [parameter.name for parameter in shared]
    own = [parameter for name, parameter in asked.items() if name not in common]

    @functools.wraps(choose)
    def command(**values: Any) -> None:
        names = choose(**{name: values[name] for name in asked})
        _run(names, **{name: values[name] for name in common})

    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    return command


@_study_command
def reproduce(*, scale: ScaleChoice) -> Sequence[str]:
    """Reproduce the paper: Tables 1 to 6 and Figure 4, and Table 7 where --scale is coco.

    Ends with the paper's claims, a line each, and one document of all. The default takes about an hour with --jobs 2
    on two cores. Stop it with Ctrl-C and start it again: finished rows are not trained twice.
    """
    return studies.names_at(scale.value, studies.all_studies())


@_study_command
def pilot(*, roiconv: RoIConv = False) -> Sequence[str]:
    """Table 1: one level instead of a pyramid, two-stage against one-stage; --roiconv: Table 2.

    Stop it with Ctrl-C and start it again: finished rows are not trained twice.
    """
    return [studies.PILOT_ROI_CONV if roiconv else studies.PILOT]


@_study_command
def ablate(study: StudyName, *, scale: ScaleChoice) -> Sequence[str]:
    """Tables 3 to 7 and Figure 4: AlignDet against RetinaNet, alignment variants, assignment, RoIConv designs.

    Stop it with Ctrl-C and start it again: finished rows are not trained twice, and tables share rows.
    """
    return studies.names_at(scale.value, studies.ablations()) if study == "all" else [study]
