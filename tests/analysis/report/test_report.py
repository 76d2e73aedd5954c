"""A report shows what a run reached, loads nothing, and takes every name for text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncli.analysis.report.page import Page, Section, Table, Text, render_page
from aligncli.analysis.report.write import write_comparison, write_run_report
from aligncli.errors import CheckpointError
from tests.analysis.report.reading import PageReader, decoded_size
from tests.analysis.report.report_runs import SHAPES, make_photos, make_run

WILD = "<script>alert('x')</script>&\"'$_\u202e日本"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its report."""
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    write_run_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run_dir: Path) -> PageReader:
    return PageReader((run_dir / "report.html").read_text(encoding="utf-8"))


def require_self_contained(page: PageReader) -> None:
    assert page.faults == []
    for address in page.resources():
        assert address.startswith(("data:", "#")), address[:80]
    images = page.named("img")
    assert images
    for image in images:
        assert image["alt"]
        width, height = decoded_size(image["src"] or "")
        assert width * int(image["height"] or 0) == pytest.approx(height * int(image["width"] or 0), rel=0.02)
    for source in page.named("source"):
        decoded_size(source["srcset"] or "")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids) > 8
    assert not page.named("script")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_page_needs_nothing_but_itself(page: PageReader) -> None:
    require_self_contained(page)


def test_the_page_forbids_scripts_and_the_network(page: PageReader) -> None:
    policies = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_links_lead_to_sections(page: PageReader) -> None:
    targets = [link["href"] for link in page.named("a")]
    ids = {section["id"] for section in page.named("section")}
    assert {f"#{name}" for name in ids} == set(targets)
    assert {"results", "training", "classes", "errors", "detections", "alignment", "recipe", "environment"} <= ids


def test_tables_have_headers_and_captions(page: PageReader) -> None:
    tables = page.named("table")
    assert len(page.named("caption")) == len(tables) >= 7
    scopes = [header.get("scope") for header in page.named("th")]
    assert scopes.count("col") > 30
    assert scopes.count("row") > 50
    assert None not in scopes


def test_the_page_tells_what_the_run_reached(page: PageReader, run_dir: Path) -> None:
    metrics = json.loads((run_dir / "evaluation.json").read_text())["metrics"]
    for expected in (f"{metrics['AP']:.1f}", "10 of 10", "localisation", "aspect > 3", "schedule.iterations", "torch"):
        assert expected in page.text


def test_a_dozen_images_stand_beside_their_ground_truth(page: PageReader) -> None:
    drawn = [image["alt"] or "" for image in page.named("img") if "val_" in (image["alt"] or "")]
    assert len(drawn) == 24
    assert sum("ground truth" in alt for alt in drawn) == 12
    for title in ("Best", "Worst", "Random"):
        assert title in page.text
    assert "the best and the worst four" in page.text


def test_charts_have_a_dark_coat(page: PageReader) -> None:
    sources = page.named("source")
    assert len(sources) >= 5
    assert {source["media"] for source in sources} == {"(prefers-color-scheme: dark)"}


def test_the_charts_are_pictures_in_the_run_folder_too(run_dir: Path) -> None:
    names = {path.name for path in (run_dir / "pictures").iterdir()}
    charts = ("curves", "class_precision", "precision_recall", "class_precision_recall", "errors")
    assert names == {f"{name}.png" for name in charts}


def test_what_cannot_be_shown_is_said(page: PageReader) -> None:
    assert "Not measured: weights" in page.text  # the run has none


def test_names_are_text_whatever_they_are(tmp_path: Path) -> None:
    recipe = make_photos(tmp_path / "data", classes=[WILD, "</style><b>bold"], file_name="<img src=x onerror=y>{}.png")
    run_dir = make_run(tmp_path / "<b>run", recipe.changed({"schedule.iterations": 10, "summary": f"{WILD}\x1b[2J"}))
    html = write_run_report(run_dir).read_text(encoding="utf-8")
    page = PageReader(html)
    require_self_contained(page)
    seen = WILD.replace("\u202e", "\N{REPLACEMENT CHARACTER}")  # control codes aside, as it was typed
    assert f"{seen}\N{REPLACEMENT CHARACTER}[2J" in page.text
    assert page.text.count(seen) > 2
    assert "<img src=x onerror=y>0.png" in page.text
    assert "\x1b" not in html
    assert not page.named("b")


def page_of(name: str, value: str) -> PageReader:
    section = Section("Only", (Text((value,)), Table(name, ("a", name), ((name, value), (value, name)))))
    return PageReader(render_page(Page(name, value, {"AP": value}, (section,))))


@pytest.fixture(scope="module")
def plain_tags() -> list[str]:
    return [tag for tag, _ in page_of("x", "x").elements]


@settings(max_examples=20, deadline=None)
@given(name=st.text(max_size=30), value=st.text(max_size=30))
def test_any_text_leaves_the_page_as_it_was_built(plain_tags: list[str], name: str, value: str) -> None:
    page = page_of(name, value)
    assert page.faults == []
    assert [tag for tag, _ in page.elements] == plain_tags


def test_a_training_that_goes_on_gets_what_there_is(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    for name in ("evaluation.json", "results.json"):
        (run_dir / name).unlink()
    page = PageReader(write_run_report(run_dir).read_text(encoding="utf-8"))
    require_self_contained(page)
    assert "Not evaluated yet: run." in page.text
    assert "The run has not been evaluated yet." in page.text


def test_data_that_has_moved_leaves_the_metrics(tmp_path: Path) -> None:
    recipe = make_photos(tmp_path / "data", classes=["cat"], file_name="{}.png")
    run_dir = make_run(tmp_path / "run", recipe.changed({"schedule.iterations": 10}))
    shutil.rmtree(tmp_path / "data")
    page = PageReader(write_run_report(run_dir).read_text(encoding="utf-8"))
    require_self_contained(page)
    assert "Not shown: " in page.text
    assert "Average precision, percent" in page.text


def test_images_that_are_broken_are_named(tmp_path: Path) -> None:
    recipe = make_photos(tmp_path / "data", classes=["cat"], file_name="{}.png")
    run_dir = make_run(tmp_path / "run", recipe.changed({"schedule.iterations": 10}))
    for path in (tmp_path / "data" / "images").iterdir():
        path.write_bytes(b"no image")
    page = PageReader(write_run_report(run_dir).read_text(encoding="utf-8"))
    require_self_contained(page)
    assert ".png: not a JPEG" in page.text[page.text.index("Not shown: ") :]
    assert "localisation" in page.text  # what needs no image is there


def test_a_folder_that_is_no_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no recipe.json"):
        write_run_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_stand_side_by_side(tmp_path: Path, run_dir: Path) -> None:
    better = make_run(tmp_path / "better", SHAPES.changed({"seed": 7}), change=lambda found, number: found)
    page = PageReader(write_comparison([run_dir, better], tmp_path / "both.html").read_text(encoding="utf-8"))
    require_self_contained(page)
    assert "Difference to run, with the 95 % interval" in page.text
    assert "Where the recipes differ" in page.text
    drawn = [image["alt"] or "" for image in page.named("img") if "val_" in (image["alt"] or "")]
    assert len(drawn) == 36
    assert not (tmp_path / "pictures").exists()


def test_runs_on_other_images_are_not_compared_picture_by_picture(tmp_path: Path, run_dir: Path) -> None:
    other = make_run(tmp_path / "other", SHAPES.changed({"data.val_seed": 444}))
    page = PageReader(write_comparison([run_dir, other], tmp_path / "both.html").read_text(encoding="utf-8"))
    assert "Evaluated on other images, and not shown here: other." in page.text
    assert "Difference to" not in page.text
