"""The packaged studies hold the paper's tables, and the paper's own figures satisfy the claims made for it."""

import math

import pytest

from aligncli.catalog import load_study, study_names
from aligncli.engine.claims import judge
from aligncli.engine.metrics import METRIC_NAMES
from aligncli.engine.study_rows import row_result

STUDIES = [load_study(name) for name in study_names()]


def paper_rows(study, metric):
    """The paper's figures as if measured, of the rows that it gives this metric for."""
    return [
        row_result(row.name, row.label, {0: row.paper} if metric in row.paper else {}, row.paper) for row in study.rows
    ]


@pytest.mark.parametrize("study", STUDIES, ids=study_names())
def test_the_paper_s_figures_satisfy_the_claims(study):
    judged = [(claim, judge(claim, paper_rows(study, claim.metric))) for claim in study.claims]
    for claim, result in judged:
        if result is not None:
            assert result.holds, claim.text
            assert result.margin == pytest.approx(result.paper_margin)
    if study.name not in {"alignment_1x1", "figure4"}:  # not the paper's; a picture without numbers
        assert any(result is not None for _, result in judged)


@pytest.mark.parametrize("study", STUDIES, ids=study_names())
def test_rows_and_claims_name_what_exists(study):
    names = [row.name for row in study.rows]
    assert len(set(names)) == len(names)
    for claim in study.claims:
        assert claim.metric in (study.metrics if study.measured_by == "alignment" else METRIC_NAMES)
        assert {name for weights in claim.weights for name in weights} <= set(names)
    for row in study.rows:
        assert set(row.paper) <= {*METRIC_NAMES, "ms"}
        assert row.recipes or row.paper
        assert row.baseline in {"", *names} - {row.name}


def test_rows_differ_from_each_other_in_what_the_table_says():
    alignment = load_study("alignment")
    for scale in ("small", "coco", "photo"):
        recipes = [row.recipes[scale].model_dump() for row in alignment.rows]
        for recipe in recipes:
            for described in ("name", "summary", "paper"):
                recipe.pop(described)
            recipe["model"]["adm"].pop("alignment")
        assert all(recipe == recipes[0] for recipe in recipes)


def test_the_paper_s_deltas():
    """Figures that the text repeats: 2.3 and 12.0 (Table 1), 5.0 (Table 2), 5.5 and 2.2 (Table 3), 1.0 (Table 6)."""
    margins = {}
    for study in STUDIES:
        for claim in study.claims:
            result = judge(claim, paper_rows(study, claim.metric))
            if result is not None:
                margins[study.name, claim.text] = round(result.margin, 1)
    assert margins["pilot", "one level costs the one-stage detector AP"] == 12.0
    assert margins["pilot", "more than four times what it costs the two-stage one"] == round(12.0 - 4 * 2.3, 1)
    assert margins["pilot_roiconv", "RoIConv repairs the single-level detector"] == 5.0
    assert margins["aligndet", "AlignDet beats RetinaNet with nine anchors"] == 2.2
    assert margins["aligndet", "the ADM improves on the DPM alone"] == 5.5
    assert not any(math.isnan(margin) for margin in margins.values())


def test_table_7_runs_ours_and_retinanet_and_cites_the_rest():
    rows = {row.name: row for row in load_study("testdev").rows}
    assert len(rows) == 19
    ours = {name for name, row in rows.items() if not row.cited}
    assert ours == {"retinanet_r101", "aligndet_r101", "retinanet_x101", "aligndet_x101"}
    for name, row in rows.items():
        assert set(row.recipes) == ({"coco"} if name in ours else set())
        assert row.detail
        assert set(row.paper) - {"ms"} == {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert rows["yolov3"].detail == "DarkNet-53, 608, 51 ms M"
    assert rows["centernet_triplets"].paper["AP"] == 44.9  # with flip test and soft NMS
    assert rows["fsaf_x101"].paper["ms"] == 188.0
    assert "inferred" in rows["fsaf_x101"].detail
    assert sum("ms" in row.paper for row in rows.values()) == 13
    assert sum("flip test" in row.detail for row in rows.values()) == 4


def test_table_7_s_own_rows_differ_in_their_backbone_alone():
    recipes = {row.name: row.recipes["coco"].model_dump() for row in load_study("testdev").rows if row.recipes}
    for recipe in recipes.values():
        for described in ("name", "summary", "paper"):
            recipe.pop(described)
        recipe["model"]["backbone"].pop("name")
    assert recipes["aligndet_r101"] == recipes["aligndet_x101"]
    assert recipes["retinanet_r101"] == recipes["retinanet_x101"]


def test_the_paper_s_aligndet_is_the_best_of_table_7_on_its_backbone():
    """Section 5.5: "AlignDet achieves much higher AP@0.75"; 3.3 AP over RetinaNet (section 1)."""
    rows = {row.name: row for row in load_study("testdev").rows}
    for suffix in ("_r101", "_x101"):
        same = {name: row.paper for name, row in rows.items() if name.endswith(suffix)}
        for metric in ("AP", "AP75"):
            assert max(same, key=lambda name: same[name][metric]) == f"aligndet{suffix}"
    assert max(rows.values(), key=lambda row: row.paper["AP75"]).name == "aligndet_x101"
    assert rows["aligndet_x101"].paper["AP"] - rows["retinanet_x101"].paper["AP"] == pytest.approx(3.3)
