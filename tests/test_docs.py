"""The code of the documentation runs as it stands there."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(3))
def test_the_operators_page_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks("roi_conv.md")
    assert len(blocks) == 3
    exec(compile(blocks[number], f"docs/roi_conv.md, block {number}", "exec"), {})


def test_the_operators_page_links_to_what_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (DOCS / "roi_conv.md").read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (DOCS / target).is_file(), target
