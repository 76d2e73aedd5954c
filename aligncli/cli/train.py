"""`aligncli train`: from a recipe and its changes to a run folder with metrics."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from aligncli.cli import launch, options, slurm_jobs
from aligncli.cli.completion import complete_recipe
from aligncli.cli.outputs import require_folder
from aligncli.cli.recipe_choice import choose_recipe, recipe_to_resume
from aligncli.cli.replay import Bundle, replay_bundle
from aligncli.cli.train_job import TrainJob, run_job
from aligncli.errors import MissingChoice, UserError

RecipeName = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        autocompletion=complete_recipe,
        help="Name, or a .py or .json file. Default: quickstart, or photo with --data.",
        show_default=False,
    ),
]
RecipeJson = Annotated[
    Path | None,
    typer.Option("--recipe-json", metavar="FILE", help="A recipe as plain data (a run's recipe.json): nothing is run."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Seed of weights and data order.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, exactly where it stopped.")]
Amp = Annotated[options.Precision | None, typer.Option("--amp", help="Mixed precision.")]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, help="Images a step; the learning rate scales with it."),
]
Report = Annotated[bool, typer.Option("--report/--no-report", help="Whether to end with RUN/report.html.")]
Download = Annotated[bool, typer.Option("--download", help="Allow ImageNet weights to be fetched.")]
Launcher = Annotated[
    options.LauncherKind,
    typer.Option("--launcher", help="slurm: submit it as a Slurm job, which requeues itself at its time limit."),
]


def train(
    context: typer.Context,
    recipe: RecipeName = None,
    *,
    recipe_json: RecipeJson = None,
    data: options.DataFolder = None,
    out: options.NewRun = None,
    seed: Seed = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    batch_size: BatchSize = None,
    amp: Amp = None,
    assignments: options.Assignments = None,
    code: options.Code = None,
    resume: Resume = False,
    replay: Bundle = None,
    report: Report = True,
    download: Download = False,
    offline: options.Offline = False,
    nproc: launch.NumProcesses = None,
    nodes: launch.NumMachines = None,
    rdzv: launch.Rendezvous = None,
    max_restarts: launch.MaxRestarts = 3,
    launcher: Launcher = options.LauncherKind.local,
    slurm: options.SlurmOptions = None,
    json: options.Json = False,
) -> None:
    """Train a detector and evaluate it.

    The run folder gets the recipe, the metrics (COCO protocol), the weights, the detections and a report. Without
    arguments the quickstart recipe is trained on embedded data, in a few minutes on a CPU. Ctrl-C leaves a
    checkpoint that --resume goes on from. A recipe named as a .py file is code and is run.
    """
    from aligncli.cli.render import Output
    from aligncli.overrides import parse_assignments

    if replay is not None:
        if (
            resume
            or download
            or any(x is not None for x in (recipe, recipe_json, out, seed, batch_size, amp, assignments))
        ):
            raise UserError(
                "--replay takes all else from its bundle: expected beside it --data, --device, --threads or --code"
            )
        options.limit_threads(threads)
        replay_bundle(replay, data=data, device=device, code=code, output=Output(json=json))
        return
    if recipe is not None and recipe_json is not None:
        raise UserError(f"RECIPE {recipe} and --recipe-json {recipe_json} name two recipes: drop one")
    download = options.may_download(download=download, offline=offline)
    given = {"seed": seed, "schedule.batch_size": batch_size, "schedule.amp": amp and amp.value}
    changes = parse_assignments(assignments or [])
    changes |= {key: value for key, value in given.items() if value is not None}
    on_slurm = launcher is options.LauncherKind.slurm
    processes = launch.asked_processes(nproc, nodes, rdzv, max_restarts, slurm=on_slurm)
    settings = slurm_jobs.asked_settings(slurm, processes) if on_slurm else None
    if slurm and not on_slurm:
        raise UserError("--slurm goes with --launcher slurm")
    with launch.joined(device) as (world, device):
        with launch.together(world):
            if world is not None and world.size > 1 and out is None:
                raise UserError("several processes train into one run folder: add --out DIR")
            if launch.was_restarted() and out is not None:
                resume = launch.has_checkpoint(out)
            if resume and out is None:
                raise MissingChoice("--resume needs the run to go on with: add --out DIR", option="--out")
            if resume and out is not None:
                chosen, parts = recipe_to_resume(out, name=recipe, plain=recipe_json, data=data, changes=changes)
            else:
                chosen, parts = choose_recipe(recipe, plain=recipe_json, data=data, changes=changes)
                out = out or Path("runs") / f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"
                if not launch.was_restarted():
                    _refuse_existing_run(out)
            parts = {**parts, **options.read_code(code)}
            code = code or (Path(recipe) if recipe and parts else None)
        job = TrainJob(
            recipe=chosen,
            run_dir=out,
            code=code,
            device=device,
            threads=threads,
            download=download,
            json=json,
            report=report,
            debug=bool(context.params.get("debug")),
        )
        if settings is not None:
            slurm_jobs.submit(job, processes, settings, resume=resume)
            return
        with slurm_jobs.requeueing(job):
            if processes is None:
                run_job(job, parts, resume=resume, world=world)
            else:
                launch.launch(job, processes)


def _refuse_existing_run(run_dir: Path) -> None:
    require_folder(run_dir)
    if (run_dir / "recipe.json").exists():
        raise UserError(f"{run_dir} already holds a run: add --resume to go on with it, or choose another --out")
