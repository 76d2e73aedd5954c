"""`aligncli reproduce`, `pilot` and `ablate` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
import torch

from aligncli.analysis import study_costs
from aligncli.analysis.estimate import Estimate, Iteration
from aligncli.build import build_model
from aligncli.cli import study_run
from aligncli.cli.study_run import Asked
from aligncli.config import Recipe, Study
from aligncli.engine.jobs import LaunchReporter
from aligncli.engine.launch import LocalLauncher
from aligncli.engine.slurm.launcher import SlurmLauncher
from aligncli.engine.study_plan import Job, Plan
from aligncli.errors import UserError
from tests.cli.command_line import Run, make_run_folder
from tests.engine.processes import ForkedCommand

ABLATIONS = ("aligndet", "alignment", "assignment", "kernel", "testdev", "figure4")
TINY = [
    *("--set", "schedule.iterations=2", "--set", "schedule.batch_size=2", "--set", "schedule.log_every=1"),
    *("--set", "data.num_train=4", "--set", "data.num_val=3", "--set", "weights=none", "--set", "data.image_size=64"),
    *("--set", "data.max_size=40", "--set", "model.adm.num_convs=1", "--set", "model.adm.channels=16"),
    *("--set", "input.min_short_side=64", "--set", "input.max_short_side=64", "--set", "input.long_side=64"),
]


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Estimates without the work; gives the recipes that were estimated."""
    estimated: list[Recipe] = []

    def made_up(recipe: Recipe, **_: object) -> Estimate:
        estimated.append(recipe)
        return Estimate(flops=2e15, seconds=600.0, memory=3 * 2**30)

    monkeypatch.setattr(study_costs, "estimate_training", made_up)
    return estimated


def test_a_dry_run_lists_the_trainings_and_makes_nothing(run: Run, tmp_path: Path, instant: list[Recipe]) -> None:
    ended = run("ablate", "alignment", "--seeds", 2, "--out", tmp_path / "s", "--dry-run", "--json")
    assert ended.code == 0
    assert [item["state"] for item in ended.json] == ["to do"] * 9  # one pre-training, 2 x 4 rows
    assert sum(item["iterations"] for item in ended.json) == 4000 + 8 * 1500
    assert {(item["flops"], item["seconds"], item["memory_bytes"]) for item in ended.json} == {(2e15, 600, 3 * 2**30)}
    assert len(instant) == 5  # of each network one
    assert not (tmp_path / "s").exists()


def test_a_dry_run_says_how_long_all_takes_side_by_side(run: Run, tmp_path: Path, instant: list[Recipe]) -> None:
    ended = run("ablate", "alignment", "--jobs", 2, "--out", tmp_path, "--device", "cpu", "--dry-run")
    assert "4 trainings, 6,000 iterations to do" in ended.stdout
    assert "about 20:00 with 2 side by side on cpu" in ended.stdout
    for cell in ("PFLOPs", "10:00", "GiB"):
        assert cell in ended.stdout


@pytest.mark.slow
def test_a_dry_run_estimates_a_row_for_real(run: Run, tmp_path: Path) -> None:
    (first, *_) = run("ablate", "alignment", "--out", tmp_path, "--dry-run", "--json", *TINY).json
    assert first["seconds"] > 0
    assert first["flops"] > 1e6
    assert first["memory_bytes"] > 1e6


def test_all_is_every_study_but_the_pilots(run: Run, tmp_path: Path, instant: list[Recipe]) -> None:
    everything = run("ablate", "all", "--out", tmp_path, "--dry-run", "--json").json
    assert len(everything) == len({item["run"] for item in everything}) == 17
    pilots = [run("pilot", *more, "--out", tmp_path, "--dry-run", "--json").json for more in ([], ["--roiconv"])]
    assert [len(rows) for rows in pilots] == [4, 3]


@pytest.mark.parametrize(
    ("scale", "count"),
    [("small", 23), ("photo", 22), ("coco", 30)],
)
def test_all_of_the_paper_is_what_its_tables_are_without_rows_twice(
    run: Run, tmp_path: Path, data_folder: Path, instant: list[Recipe], scale: str, count: int
) -> None:
    rest = ["--scale", scale, "--out", tmp_path, "--dry-run", "--json"]
    rest += [] if scale == "small" else ["--data", data_folder]
    tables = [run(*command, *rest).json for command in (["pilot"], ["pilot", "--roiconv"], ["ablate", "all"])]
    everything = run("reproduce", *rest).json
    assert _settings(everything) == {settings for rows in tables for settings in _settings(rows)}
    assert len(_settings(everything)) == len(everything) == count


def _settings(trainings: list[dict[str, object]]) -> set[str]:
    """What follows a row's name: rows of two tables with the same settings are one training."""
    return {str(item["run"]).rsplit("-", 2)[1] for item in trainings}


@pytest.fixture
def made_up_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that take no time: row after row reaches one AP more, and no weights are kept to look into."""

    def finish(
        self: LocalLauncher, name: str, jobs: Sequence[Job], reporter: LaunchReporter, costs: Mapping[Path, float]
    ) -> None:
        assert costs == {job.run_dir: 0.25 for job in jobs if not job.is_finished()}
        metrics = ("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl")
        for number, job in enumerate(jobs):
            make_run_folder(job.run_dir, average_precision=30.0 + number, recipe=job.recipe, metrics=metrics)

    monkeypatch.setattr(LocalLauncher, "run", finish)
    monkeypatch.setattr(study_costs, "time_iteration", lambda *_, **__: Iteration(flops=1e9, seconds=0.25))
    ious = {"conv": 50.0, "deform": 60.0, "guided": 55.0, "roi_conv": 100.0}
    parts = ("confident", "share >= .5", "share >= .7", "on objects", "all")

    def look(
        asked: Asked, study: Study, plan: Plan, *_: object, **__: object
    ) -> tuple[dict[Path, dict[str, float]], dict[str, Path]]:
        runs = {row.name: plan.runs[study.name, row.name, 0].run_dir for row in study.rows}
        measured = {run_dir: dict.fromkeys(parts, ious[name]) for name, run_dir in runs.items()}
        return measured, {"Where they look": asked.out / "figure4" / "overlay.png"}

    monkeypatch.setattr(study_run, "_measure_alignment", look)


@pytest.mark.parametrize(("where", "weight"), [("local", 0.25), ("slurm", 7e9)])
def test_networks_are_timed_where_the_trainings_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, weight: float
) -> None:
    """A cluster's nodes are not this machine: operations are all that is known of them."""
    weights: set[float] = set()

    def stop(*given: object) -> None:
        weights.update(cast("Mapping[Path, float]", given[-1]).values())
        raise UserError("seen")

    monkeypatch.setattr(LocalLauncher, "run", stop)
    monkeypatch.setattr(SlurmLauncher, "run", stop)
    monkeypatch.setattr(study_costs, "time_iteration", lambda *_, **__: Iteration(flops=1e9, seconds=0.25))
    monkeypatch.setattr(study_costs, "count_iteration", lambda *_: 7e9)
    assert run("pilot", "--launcher", where, "--out", tmp_path, "--device", "cpu").code == 2
    assert weights == {weight}


@pytest.mark.usefixtures("made_up_runs")
def test_all_of_the_paper_ends_with_its_claims_and_one_document(run: Run, tmp_path: Path) -> None:
    ended = run("reproduce", "--out", tmp_path, "--device", "cpu")
    assert ended.code == 0, ended.stderr
    tables = ["Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Figure 4"]
    places = [ended.stdout.index(f"{table}: ") for table in tables]
    assert places == sorted(places)
    claims = ended.stdout[places[-1] :]
    document = (tmp_path / "paper-small.md").read_text()
    overview, *sections = document.split("\n## ")
    assert [section.partition(":")[0] for section in sections if "1x1" not in section.partition("\n")[0]] == tables
    judged = run("reproduce", "--out", tmp_path, "--device", "cpu", "--json").json["studies"]
    verdicts = [claim["verdict"] for study in judged for claim in study["claims"]]
    assert {"holds", "does not hold"} == set(verdicts)
    counted = f"{verdicts.count('holds')} of {len(verdicts)} claims hold, 0 are within noise"
    assert counted in claims
    assert counted in overview
    assert overview.count("**holds**") == verdicts.count("holds")
    assert sections[-1].endswith("\n![Where they look](figure4/overlay.png)\n")
    for study in judged:
        assert f"## {study['table']}: {study['title']}\n" in document
        for claim in study["claims"]:
            assert document.count(claim["text"]) == 2  # above all, and below its table


@pytest.mark.usefixtures("made_up_runs")
def test_one_study_has_no_overview(run: Run, tmp_path: Path) -> None:
    ended = run("ablate", "alignment", "--out", tmp_path, "--device", "cpu")
    assert ended.code == 0, ended.stderr
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["alignment-small.md"]


def test_the_paper_s_own_setting_needs_one_line_a_table(run: Run, tmp_path: Path, instant: list[Recipe]) -> None:
    """COCO itself need not be here to look ahead."""
    counts = {}
    for command in (["pilot"], ["pilot", "--roiconv"], *(["ablate", name] for name in ABLATIONS)):
        ended = run(*command, "--scale", "coco", "--data", tmp_path / "coco", "--out", tmp_path, "--dry-run", "--json")
        assert ended.code == 0, ended.stderr
        counts[command[-1]] = [item["iterations"] for item in ended.json]
    assert counts.pop("testdev") == [135_000] * 4
    assert {name: len(rows) for name, rows in counts.items()} == {
        "pilot": 4,
        "--roiconv": 3,
        "aligndet": 6,
        "alignment": 4,
        "assignment": 5,
        "kernel": 6,
        "figure4": 4,
    }
    assert all(set(rows) == {90_000} for rows in counts.values())


def test_every_table_but_the_last_can_be_run_on_one_s_own_photos(
    run: Run, tmp_path: Path, data_folder: Path, instant: list[Recipe]
) -> None:
    for command in (["pilot"], ["pilot", "--roiconv"], ["ablate", "all"]):
        ended = run(*command, "--scale", "photo", "--data", data_folder, "--out", tmp_path, "--dry-run", "--json")
        assert ended.code == 0, ended.stderr
    assert {recipe.data.kind for recipe in instant} == {"coco"}
    assert {recipe.input.max_short_side for recipe in instant} == {320}
    for recipe in instant:  # they build, and their anchors fit their levels
        build_model(recipe.changed({"weights": "none"}), 2)


@pytest.mark.slow
def test_a_study_prints_its_table_its_claims_and_json(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ForkedCommand.stand_in(monkeypatch)
    command = ["ablate", "alignment", "--out", tmp_path, "--jobs", 2, *TINY]
    ended = run(*command)
    assert ended.code == 0, ended.stderr
    for expected in (
        "Table 4",
        "(d) RoI Conv",
        "paper",
        "35.2",
        "RoIConv beats",
        "one seed",
        "Δ AP",
        "against “(a) Conv”",
    ):
        assert expected in ended.stdout
    assert "(d) RoI Conv" in next(tmp_path.glob("alignment-small-*.md")).read_text()
    again = run(*command, "--json").json  # finished: nothing is trained
    assert [row["row"] for row in again["rows"]][-1] == "(d) RoI Conv"
    for row in again["rows"]:
        assert 0 <= row["AP"] <= 100
        assert row["paper"]["AP"] > 35
        assert row["seconds"] > 0
    assert again["rows"][-1]["delta"]["paper"] == pytest.approx(1.0)
    assert {"holds", "margin", "text", "verdict"} <= again["claims"][0].keys()
    assert run(*command, "--dry-run").stdout.count("finished") == 4

    figure = run("ablate", "figure4", "--out", tmp_path, *TINY)  # Table 4's runs: nothing is trained
    assert figure.code == 0, figure.stderr
    assert "training" not in figure.stderr
    assert "share >= .7" in figure.stdout
    (written,) = tmp_path.glob("figure4-small-*.md")  # of changed settings
    (picture,) = tmp_path.glob("figure4-*/distributions.png")
    assert f"]({picture.relative_to(tmp_path).as_posix()})" in written.read_text()
    measured = json.loads(written.with_suffix(".json").read_text())
    everywhere = {row["name"]: row["all"] for row in measured["rows"]}
    assert everywhere["roi_conv"] == 100.0
    assert all(0 < everywhere[name] < 100 for name in ("conv", "deform", "guided"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablate", "alignmet"], "unknown study 'alignmet': did you mean 'alignment'?"),
        (["ablate", "alignment", "--scale", "coco"], "--scale coco needs --data FOLDER"),
        (["ablate", "alignment", "--scale", "small", "--data", "."], "--scale small takes no --data"),
        (["ablate", "testdev", "--scale", "photo", "--data", "."], "study 'testdev' has no row at scale 'photo'"),
        (["ablate", "alignment", "--seeds", "51"], "--seeds is 51: expected 1 to 50"),
        (["ablate", "testdev"], "study 'testdev' has no row at scale 'small'"),
        (["pilot", "--slurm", "partition=gpu"], "--slurm goes with --launcher slurm"),
        (["pilot", "--set", "optimizer.rl=1"], "unknown recipe key 'optimizer.rl': did you mean 'optimizer.lr'?"),
    ],
)
def test_mistakes_are_one_line(run: Run, arguments: list[str], message: str) -> None:
    assert run(*arguments).error_line() == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "photo", "--data", "/nowhere"], "data folder /nowhere does not exist"),
        (
            ["--set", "weights=nothing.pth"],
            "weights nothing.pth do not exist: expected a file that ends in .safetensors or .pth, .pt, .bin",
        ),
    ],
)
def test_what_is_not_there_is_said_once_and_before_anything_is_started(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ended = run("ablate", "alignment", "--out", tmp_path / "out", *arguments)
    assert ended.error_line() == message
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_device_that_is_not_there_is_told_before_anything_is_timed(run: Run, tmp_path: Path, more: list[str]) -> None:
    line = run("ablate", "alignment", "--device", "cuda", "--out", tmp_path / "s", *more).error_line()
    assert line.startswith("device 'cuda' cannot be used here")
    assert not (tmp_path / "s").exists()
