"""A study's files: every figure in its place, and JSON that any reader takes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from aligncli.analysis.bench.machine import describe_machine
from aligncli.analysis.study_report import Chapter, to_markdown, write_report, write_summary
from aligncli.config import Claim
from aligncli.engine.claims import judge
from aligncli.engine.study_results import StudyResult
from aligncli.engine.study_rows import compare, row_result

CLAIM = Claim(text="RoIConv beats conv", weights=({"roi": 1.0, "conv": -1.0},))


def result(num_seeds):
    values = {"conv": [30.0, 32.0], "roi": [35.0, 36.0]}
    conv, roi = (
        row_result(name, name.title(), {seed: {"AP": ap} for seed, ap in enumerate(aps[:num_seeds])}, {"AP": paper})
        for (name, aps), paper in zip(values.items(), (35.2, 36.2), strict=True)
    )
    roi = replace(roi, delta=compare(roi, conv, "AP"), seconds=90.0)
    cited = replace(row_result("fcos", "FCOS | R101", {}, {"AP": 41.0}), cited=True, detail="R101, 800")
    judged = judge(CLAIM, [conv, roi])
    elsewhere = row_result("r101", "R101", {}, {"AP": 39.8})  # only at another scale
    rows = (conv, roi, cited, elsewhere)
    return StudyResult("alignment", "Table 4", "Variants", "small", num_seeds, ("AP",), rows, (judged,))


def table(text):
    return [
        [cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def markdown(chapter):
    return to_markdown(chapter, Path("out"), machine=describe_machine("cpu"), date="2026-11-22")


def test_a_report_says_what_was_trained_where_and_a_trial_replaces_no_table(tmp_path):
    packaged = Chapter(result(1))
    changes = {"schedule.iterations": 3}
    trial = Chapter(replace(result(1), changes=changes, data="photos", machines=("a chip, AVX2, torch 2.11.0",)))
    assert "Trained on machines that the runs do not name." in markdown(packaged)
    text = markdown(trial)
    assert (
        "Scale small, one seed, data photos, --set schedule.iterations=3. Trained on a chip, AVX2, torch 2.11.0."
        in text
    )
    paths = {write_report(each, tmp_path, machine=describe_machine("cpu")) for each in (packaged, trial)}
    paths |= {write_summary([each], tmp_path, machine=describe_machine("cpu")) for each in (packaged, trial)}
    assert len(paths) == 4
    assert {path.name for path in paths} >= {"alignment-small.md", "paper-small.md"}
    assert json.loads((tmp_path / "alignment-small.json").read_text())["changes"] == {}


def test_markdown_has_ours_above_the_paper_s():
    text = markdown(Chapter(result(2), "a remark"))
    assert text.startswith("## Table 4: Variants\n")
    assert "2 seeds" in text
    assert "a remark" in text
    lines = table(text)
    assert lines[0] == ["", "", "AP", "Δ AP", "minutes a run"]
    assert ["Conv", "ours", "31.0 ± 1.4", "", "-"] in lines
    assert ["", "paper", "35.2", "", ""] in lines
    assert ["Roi", "ours", "35.5 ± 0.7", "+4.5 ± 0.7", "1.5"] in lines
    assert ["", "paper", "36.2", "+1.0", ""] in lines
    assert ["FCOS / R101 (R101, 800)", "cited", "41.0", "", ""] in lines
    assert ["R101", "paper", "39.8", "", ""] in lines
    assert sum(line[0] == "R101" for line in lines) == 1
    assert ["RoIConv beats conv", "AP", "+4.5 ± 6.4", "+1.0", "**within noise**"] in lines


def test_one_seed_has_no_spread():
    text = markdown(Chapter(result(1)))
    assert "one seed" in text
    assert "±" not in text
    assert ["Roi", "ours", "35.0", "+5.0", "1.5"] in table(text)


def test_files_are_written_side_by_side_and_nan_is_null(tmp_path):
    path = write_report(Chapter(result(1)), tmp_path / "new", machine=describe_machine("cpu"))
    assert path == tmp_path / "new" / "alignment-small.md"
    values = json.loads(path.with_suffix(".json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert values["machine"]["device"] == "cpu"
    assert [row["row"] for row in values["rows"]] == ["Conv", "Roi", "FCOS | R101", "R101"]
    assert values["rows"][0]["seconds"] is None
    assert values["rows"][1]["AP"] == 35.0
    assert not math.isnan(values["claims"][0]["margin"])


def test_pictures_are_linked_from_where_the_documents_lie(tmp_path):
    chapter = Chapter(result(1), pictures={"Where they look": tmp_path / "figure4" / "overlay.png"})
    machine = describe_machine("cpu")
    for path in (write_report(chapter, tmp_path, machine=machine), write_summary([chapter], tmp_path, machine=machine)):
        assert "\n![Where they look](figure4/overlay.png)\n" in path.read_text()
