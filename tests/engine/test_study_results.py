"""Claims are judged seed by seed, on numbers made by hand."""

import json
import math

import numpy as np
import pytest

from aligncli.catalog import load_study
from aligncli.config import Claim
from aligncli.engine.claims import T_95, count_verdicts, half_width, judge
from aligncli.engine.run_folder import RunFolder, write_json
from aligncli.engine.study_plan import MAX_SEEDS, make_plan
from aligncli.engine.study_results import StudyResult, collect
from aligncli.engine.study_rows import compare, row_result
from aligncli.errors import CheckpointError

ROI_BEATS_CONV = Claim(text="RoIConv beats conv", weights=({"roi": 1.0, "conv": -1.0},))


def rows(roi, conv, *, papers=(30.0, 30.0)):
    return [
        row_result(name, name.title(), {seed: {"AP": ap} for seed, ap in enumerate(values)}, {"AP": paper})
        for name, values, paper in zip(("roi", "conv"), (roi, conv), papers, strict=True)
    ]


def test_means_and_deviations_over_seeds():
    row = row_result("a", "A", {0: {"AP": 1.0}, 1: {"AP": 2.0}, 2: {"AP": 6.0}}, {})
    assert row.mean == {"AP": 3.0}
    assert row.spread["AP"] == pytest.approx(math.sqrt(7))
    assert math.isnan(row_result("a", "A", {0: {"AP": 1.0}}, {}).spread["AP"])


def test_one_seed_is_judged_by_the_sign_alone():
    better = judge(ROI_BEATS_CONV, rows([52.0], [51.0]))
    assert (better.holds, better.verdict, better.margin, better.seeds) == (True, "holds", 1.0, 1)
    assert math.isnan(better.noise)
    worse = judge(ROI_BEATS_CONV, rows([50.0], [51.0]))
    assert (worse.holds, worse.verdict) == (False, "does not hold")


def test_what_seeds_share_drops_out_because_they_are_paired():
    """AP swings by 20 between seeds, the difference never does."""
    claim = judge(ROI_BEATS_CONV, rows([32.0, 52.1, 41.9], [30.0, 50.0, 40.0]))
    assert claim.holds
    assert claim.margin == pytest.approx(2.0)
    assert claim.noise == pytest.approx(4.303 * 0.1 / math.sqrt(3))


def test_a_difference_within_its_confidence_interval_is_noise():
    claim = judge(ROI_BEATS_CONV, rows([32.0, 50.5, 39.0], [30.0, 50.0, 40.0]))
    assert claim.margin == pytest.approx(0.5)
    assert (claim.holds, claim.verdict) == (False, "within noise")


def test_the_weakest_of_several_sums_decides():
    claim = Claim(text="", weights=({"roi": 1.0, "conv": -1.0}, {"roi": 1.0, "conv": -2.0}))
    judged = judge(claim, rows([52.0], [30.0], papers=(37.0, 18.0)))
    assert judged.margin == -8.0
    assert judged.paper_margin == 1.0
    assert not judged.holds


def test_a_claim_about_a_row_that_was_not_run_is_not_judged():
    cited = row_result("conv", "Conv", {}, {"AP": 35.2})
    assert judge(ROI_BEATS_CONV, [rows([52.0], [51.0])[0], cited]) is None
    assert not cited.measured


def test_verdicts_are_counted():
    values = (([52.0], [51.0]), ([50.0], [51.0]), ([52.0, 50.0], [51.0, 51.5]))
    holds, fails, noise = (judge(ROI_BEATS_CONV, rows(*pair)) for pair in values)
    assert count_verdicts([]) == "0 of 0 claims hold, 0 are within noise, 0 do not hold"
    assert count_verdicts([fails, holds, noise, holds]) == "2 of 4 claims hold, 1 are within noise, 1 do not hold"


def test_half_width_of_hand_computed_intervals():
    assert math.isnan(half_width([1.0]))
    assert half_width([1.0, 3.0]) == pytest.approx(12.706 * math.sqrt(2) / math.sqrt(2))
    assert half_width([float(i % 2) for i in range(40)]) == pytest.approx(2.023 * 0.50637 / math.sqrt(40), rel=1e-4)


def test_quantiles_are_student_s_for_every_number_of_seeds():
    """97.5 % of the density, integrated, lie below each; a quantile is given to three digits behind the point."""
    assert len(T_95) == MAX_SEEDS - 1
    for freedom, quantile in enumerate(T_95, start=1):
        steps = np.linspace(0, quantile, 200_001)
        peak = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        density = peak * (1 + steps**2 / freedom) ** (-(freedom + 1) / 2)
        assert 0.5 + np.trapezoid(density, steps) == pytest.approx(0.975, abs=6e-5)


def test_a_metric_that_no_image_defines_is_told_and_ends_nothing():
    """AP of large objects, where there is none; at one seed of two it is undefined for the mean as well."""
    undefined = row_result("roi", "RoI", {0: {"AP": 50.0}, 1: {"AP": math.nan}}, {})
    assert math.isnan(undefined.mean["AP"])
    assert math.isnan(undefined.spread["AP"])
    conv = rows([0.0, 0.0], [49.0, 49.0])[1]
    judged = judge(ROI_BEATS_CONV, [undefined, conv])
    assert (judged.holds, judged.verdict) == (False, "undefined")
    assert math.isnan(compare(undefined, conv, "AP").mean)
    told = count_verdicts([judged, judge(ROI_BEATS_CONV, rows([52.0], [51.0]))])
    assert told == "1 of 2 claims hold, 0 are within noise, 0 do not hold, 1 are undefined"


THREE = Claim(text="", weights=({"d": 1.0, "a": -1.0}, {"d": 1.0, "b": -1.0}))


@pytest.mark.parametrize(
    ("d", "a", "b", "verdict"),
    [
        ([50.0, 51.0, 52.0], [49.0, 50.1, 50.9], [58.0, 40.0, 50.0], "within noise"),  # d - b is anything
        ([50.0, 51.0, 52.0], [49.0, 50.1, 50.9], [40.0, 41.0, 42.1], "holds"),
        ([50.0, 51.0, 52.0], [49.0, 50.1, 50.9], [60.0, 61.0, 62.1], "does not hold"),
        ([50.0], [math.nan], [49.0], "undefined"),
        ([50.0], [49.0], [math.nan], "undefined"),
        ([50.0], [49.0], [51.0], "does not hold"),
        ([50.0], [49.0], [48.0], "holds"),
    ],
)
def test_every_sum_of_a_claim_has_to_be_beyond_its_noise(d, a, b, verdict):
    made = [
        row_result(name, name, {seed: {"AP": value} for seed, value in enumerate(values)}, {})
        for name, values in {"d": d, "a": a, "b": b}.items()
    ]
    judged = judge(THREE, made)
    assert judged.verdict == verdict
    assert judged.holds == (verdict == "holds")


def test_json_has_the_names_that_scripts_rely_on():
    measured = rows([52.0], [51.0])
    result = StudyResult(
        "alignment", "Table 4", "t", "small", 1, ("AP",), tuple(measured), (judge(ROI_BEATS_CONV, measured),)
    )
    values = result.to_json()
    assert values["rows"][0]["row"] == "Roi"
    assert values["rows"][0]["AP"] == 52.0
    assert values["rows"][0]["paper"] == {"AP": 30.0}
    assert values["claims"][0]["holds"] is True
    assert values["claims"][0]["margin"] == 1.0


def test_a_gain_is_paired_by_seed_and_set_beside_the_paper_s():
    roi, conv = rows([32.0, 52.1, 41.9], [30.0, 50.0, 40.0], papers=(36.2, 35.2))
    gain = compare(roi, conv, "AP")
    assert gain.against == "conv"
    assert gain.mean == pytest.approx(2.0)
    assert gain.spread == pytest.approx(0.1)
    assert gain.paper == pytest.approx(1.0)


def test_a_gain_on_a_row_that_was_not_run_is_undefined():
    cited = row_result("conv", "Conv", {}, {"AP": 35.2})
    gain = compare(rows([52.0], [51.0])[0], cited, "AP")
    assert math.isnan(gain.mean)
    assert gain.paper == pytest.approx(30.0 - 35.2)


def test_a_finished_row_without_its_evaluation_s_file_is_read_from_its_metrics(tmp_path):
    """And a damaged note of how long it took costs that alone."""
    study = load_study("alignment")
    plan = make_plan([study], scale="small", seeds=1, folder=tmp_path, changes={"schedule.iterations": 3})
    for number, job in enumerate(plan.trainings):
        run = RunFolder(job.run_dir)
        run.root.mkdir(parents=True)
        write_json(run.recipe_path, job.recipe.model_dump(mode="json"))
        run.metrics_path.write_text(
            json.dumps({"iteration": 3, "evaluation": {"AP": 50.0 + number, "AP75": None}}) + "\n"
        )
        run.time_path.write_text('{"seconds": ')
        write_json(run.root / "environment.json", {"hardware": "a chip, AVX2", "packages": {"torch": "2.11.0"}})
    found = collect(study, plan, scale="small", seeds=1)
    assert [row.mean["AP"] for row in found.rows] == [50.0, 51.0, 52.0, 53.0]
    assert all(math.isnan(row.seconds) for row in found.rows)
    values = found.to_json()
    assert values["changes"] == {"schedule.iterations": 3}
    assert values["trained_on"] == ["a chip, AVX2, torch 2.11.0"]
    assert values["rows"][0]["runs"] == {0: plan.trainings[0].run_dir.name}
    assert [claim.verdict for claim in found.claims] == ["holds", "undefined"]


def test_a_folder_with_another_row_s_training_is_no_row(tmp_path):
    """Exactly what an evaluation is read from, but of a recipe that the study did not plan there."""
    study = load_study("alignment")
    plan = make_plan([study], scale="small", seeds=1, folder=tmp_path, changes={})
    for job in plan.trainings:
        run = RunFolder(job.run_dir)
        run.root.mkdir(parents=True)
        write_json(run.recipe_path, plan.trainings[0].recipe.model_dump(mode="json"))
        write_json(run.evaluation_path, {"metrics": {"AP": 50.0}})
        last = {"iteration": job.recipe.schedule.iterations, "evaluation": {"AP": 50.0}}
        run.metrics_path.write_text(json.dumps(last) + "\n")
    with pytest.raises(CheckpointError, match=r"aligndet_small-deform-.* does not hold row 'deform' of study 'align"):
        collect(study, plan, scale="small", seeds=1)
