"""The page in a real browser. Skipped where playwright or a Chromium is missing; both are optional."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aligncli.analysis.report.write import write_run_report
from tests.analysis.report.report_runs import make_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# No sandbox, or it does not start as root, as in a container; the others keep it from calling home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_report(make_run(tmp_path_factory.mktemp("report") / "run"))


def test_every_figure_is_shown_without_a_word_on_the_console(report: Path) -> None:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        for width in (1280, 390):
            papers = set()
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                said: list[str] = []
                asked: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto(report.as_uri())
                shown = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
                assert len(shown) > 25
                assert all(shown)
                assert said == []
                assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
                assert page.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
                chosen = page.evaluate("document.querySelector('.chart img').currentSrc")
                papers.add((page.evaluate("getComputedStyle(document.body).backgroundColor"), chosen))
                page.close()
            assert len(papers) == 2  # light and dark, page and charts
        browser.close()
