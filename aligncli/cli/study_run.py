"""What a study does: plan, train, measure, print, and write its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aligncli.cli import options
from aligncli.cli.outputs import require_folder
from aligncli.errors import MissingChoice, UserError

if TYPE_CHECKING:
    from aligncli.analysis.study_report import Chapter
    from aligncli.cli.progress import ProgressReporter
    from aligncli.cli.render import Output
    from aligncli.config import Study
    from aligncli.engine.jobs import Launcher
    from aligncli.engine.slurm.settings import SlurmSettings
    from aligncli.engine.study_plan import Plan


@dataclass(frozen=True)
class Asked:
    """What the command line says, the same for both commands."""

    names: Sequence[str]
    scale: options.Scale
    seeds: int
    data: Path | None
    out: Path
    jobs: int | None
    launcher: options.LauncherKind
    slurm: Sequence[str]
    device: str
    assignments: list[str]
    download: bool
    dry_run: bool

    @property
    def parallel(self) -> int:
        """Trainings side by side on this machine."""
        return self.jobs or 1


def run_study(asked: Asked, *, json: bool) -> None:
    from aligncli.catalog import load_study
    from aligncli.cli.render import Output
    from aligncli.engine.slurm.settings import parse_settings
    from aligncli.overrides import parse_assignments

    _check(asked)
    settings = parse_settings(list(asked.slurm))
    scale = asked.scale.value
    studies = [load_study(name) for name in asked.names]
    output = Output(json=json)
    with output.waiting():  # torch takes seconds to import
        from aligncli.engine.inference import check_device
        from aligncli.engine.jobs import require_inputs
        from aligncli.engine.launch import devices_for
        from aligncli.engine.process import prepare_process
        from aligncli.engine.study_plan import make_plan

    prepare_process()  # steps are timed here for estimates, and Figure 4 is measured here
    changes = parse_assignments(asked.assignments)
    plan = make_plan(studies, scale=scale, seeds=asked.seeds, folder=asked.out, data=asked.data, changes=changes)
    if asked.dry_run or asked.launcher is options.LauncherKind.local:
        for device in devices_for(asked.device):
            check_device(device)
    if asked.dry_run:
        _dry_run(asked, plan, output)
        return
    if asked.launcher is options.LauncherKind.local:  # a cluster's nodes may see what this machine does not
        require_inputs(plan.jobs, download=asked.download)
    launcher = _launcher(asked, settings)
    with output.progress(waiting="starting the trainings") as reporter:
        launcher.run("training", plan.jobs, reporter, _weigh(asked, plan, reporter))
    chapters = [_conclude(asked, study, plan, output) for study in studies]
    if len(chapters) > 1:
        _sum_up(asked, chapters, output)
    values = [chapter.result.to_json() for chapter in chapters]
    output.data(values[0] if len(values) == 1 else {"studies": values})


def _check(asked: Asked) -> None:
    """Raises UserError where options contradict each other."""
    scale = asked.scale.value
    if (asked.data is None) == (scale != "small"):
        if asked.data is None:
            raise MissingChoice(f"--scale {scale} needs --data FOLDER", option="--data")
        raise UserError(f"--scale {scale} takes no --data")
    require_folder(asked.out)
    if asked.launcher is options.LauncherKind.local and asked.slurm:
        raise UserError("--slurm goes with --launcher slurm")


def _launcher(asked: Asked, settings: SlurmSettings) -> Launcher:
    from aligncli.engine.launch import LocalLauncher, devices_for
    from aligncli.engine.slurm.launcher import SlurmLauncher

    if asked.launcher is options.LauncherKind.slurm:
        return SlurmLauncher(asked.out / "slurm", settings, asked.jobs, asked.device, asked.download)
    return LocalLauncher(asked.parallel, devices_for(asked.device), asked.download)


def _weigh(asked: Asked, plan: Plan, reporter: ProgressReporter) -> dict[Path, float]:
    """What an iteration of each training that is not finished takes, for the time left to follow from."""
    from aligncli.analysis.study_costs import weigh_iterations
    from aligncli.engine.launch import devices_for

    here = asked.launcher is options.LauncherKind.local and devices_for(asked.device) == ("cpu",)
    return weigh_iterations(
        {job.run_dir: job.recipe for job in plan.jobs if not job.is_finished()},
        timed=here,
        progress=lambda done, total: reporter.stage("timing the networks", done=done, total=total),
    )


def _dry_run(asked: Asked, plan: Plan, output: Output) -> None:
    """Print the plan; every network that is still to be trained is estimated once."""
    from aligncli.analysis.study_costs import estimate_trainings
    from aligncli.cli.study_tables import show_plan
    from aligncli.engine.launch import devices_for, threads_for

    waiting = {job.run_dir: job.recipe for job in plan.jobs if not job.is_finished()}
    device, threads = devices_for(asked.device)[0], threads_for(min(asked.parallel, len(waiting)))
    with output.progress(waiting="building the networks") as reporter:
        estimates = estimate_trainings(
            waiting,
            device=device,
            threads=threads,
            progress=lambda done, total: reporter.stage("estimating", done=done, total=total),
        )
    show_plan(output, plan.jobs, estimates, parallel=asked.parallel, device=device)


def _conclude(asked: Asked, study: Study, plan: Plan, output: Output) -> Chapter:
    """The study's table on the terminal and in files, and what else it makes: figures, detections for the server."""
    from aligncli.analysis.bench.machine import describe_machine
    from aligncli.analysis.study_report import Chapter, write_report
    from aligncli.cli.study_tables import show_result
    from aligncli.engine.launch import devices_for
    from aligncli.engine.study_results import collect

    device = devices_for(asked.device)[0]
    scale = asked.scale.value
    read, pictures = None, {}
    if study.measured_by == "alignment":
        measured, pictures = _measure_alignment(asked, study, plan, output, device=device)
        read = measured.__getitem__
    result = collect(study, plan, scale=scale, seeds=asked.seeds, read=read)
    show_result(output, study, result)
    chapter = Chapter(result, study.note, pictures)
    path = write_report(chapter, asked.out, machine=describe_machine(device))
    output.line(f"also in {path} and {path.with_suffix('.json').name}")
    if study.submits:
        _write_submissions(asked, study, plan, output, device=device)
    return chapter


def _sum_up(asked: Asked, chapters: Sequence[Chapter], output: Output) -> None:
    """All claims together, and all tables in one file."""
    from aligncli.analysis.bench.machine import describe_machine
    from aligncli.analysis.study_report import write_summary
    from aligncli.cli.study_tables import show_all_claims
    from aligncli.engine.launch import devices_for

    show_all_claims(output, [chapter.result for chapter in chapters])
    path = write_summary(chapters, asked.out, machine=describe_machine(devices_for(asked.device)[0]))
    output.line(f"all tables: {path}")


def _measure_alignment(
    asked: Asked, study: Study, plan: Plan, output: Output, *, device: str
) -> tuple[dict[Path, dict[str, float]], dict[str, Path]]:
    """Figure 4's numbers of every run, and its pictures of the first seed's, by caption."""
    from aligncli.analysis.alignment.figure4 import CAPTIONS, measure_run, study_metrics, write_figures
    from aligncli.analysis.study_report import changed_suffix

    jobs = {
        (row.label, seed): plan.runs[study.name, row.name, seed]
        for seed in range(asked.seeds)
        for row in study.rows
        if asked.scale.value in row.recipes
    }
    measured = {}
    with output.progress() as reporter:
        for done, ((label, seed), job) in enumerate(jobs.items()):
            reporter.stage("measuring alignment", done=done, total=len(jobs))
            measured[label, seed] = measure_run(job.run_dir, name=label, device=device)
        reporter.stage("measuring alignment", done=len(jobs), total=len(jobs))
    figures = asked.out / f"{study.name}{changed_suffix(plan.changes)}"
    files = write_figures([measured[key] for key in jobs if key[1] == 0], figures)
    output.line(f"figures: {files[0].parent}")
    pictures = {CAPTIONS[path.stem]: path for path in files if path.suffix == ".png"}
    return {job.run_dir: study_metrics(measured[key][0]) for key, job in jobs.items()}, pictures


def _write_submissions(asked: Asked, study: Study, plan: Plan, output: Output, *, device: str) -> None:
    """Detections of the first seed's runs on test-dev, in the format of COCO's server; files that exist are kept."""
    from aligncli.engine.submission import SERVER_NAME, write_submission
    from aligncli.errors import DataError

    for row in study.rows:
        if asked.scale.value not in row.recipes:
            continue
        job = plan.runs[study.name, row.name, 0]
        path = asked.out / study.name / SERVER_NAME.replace("ALG", job.recipe.name)
        if path.is_file():
            output.line(f"test-dev: {path} was written before")
            continue
        try:
            with output.progress() as reporter:
                made = write_submission(job.run_dir, asked.data, path, device=device, reporter=reporter)
        except DataError as error:  # the trainings took days: what they reached is told all the same
            output.note(f"no test-dev detections of {row.label}: {error}")
            continue
        output.line(f"test-dev: {made.num_detections:,} detections on {made.num_images:,} images in {made.path}")
