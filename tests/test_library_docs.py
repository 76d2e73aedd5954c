"""docs/library.md and the notebook run as they stand there."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.test_docs import DOCS, aligncli, python_blocks

NOTEBOOK = DOCS / "roi_conv_in_your_head.ipynb"
RESULT = re.compile(r"^(convolution|RoIConv) +([\d,]+) +([\d.]+)", re.MULTILINE)  # parameters and AP
TINY = {"schedule.iterations": 2, "schedule.batch_size": 2, "data.num_train": 4, "data.num_val": 2}


@pytest.fixture(scope="module")
def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def results(printed: str) -> dict[str, tuple[str, float]]:
    return {name: (parameters, float(ap)) for name, parameters, ap in RESULT.findall(printed)}


@pytest.mark.slow
def test_the_notebook_runs_and_roi_conv_beats_a_convolution_of_its_size(
    code_cells: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To renew its outputs: jupyter nbconvert --execute --inplace docs/roi_conv_in_your_head.ipynb"""
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    namespace: dict[str, Any] = {}
    with torch.random.fork_rng():
        for number, cell in enumerate(code_cells):
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), namespace)
    found = results(capsys.readouterr().out)
    namespace["plt"].close("all")
    assert found["RoIConv"][0] == found["convolution"][0]
    assert found["RoIConv"][1] > found["convolution"][1] + 5


def test_the_notebook_holds_what_it_printed_and_drew(code_cells: list[dict[str, Any]]) -> None:
    outputs = [output for cell in code_cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in code_cells] == list(range(1, len(code_cells) + 1))
    assert [output["output_type"] for output in outputs].count("error") == 0
    saved = results("".join("".join(output.get("text", "")) for output in outputs))
    assert saved["RoIConv"][1] > saved["convolution"][1] + 5
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert NOTEBOOK.stat().st_size < 300_000


def test_the_library_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (90, 60), (200, 30, 30)).save("photo.jpg")
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    aligncli("train", "--out", "runs/mine", "--no-report", *settings)
    for number, block in enumerate(python_blocks("library.md")):
        exec(compile(block, f"docs/library.md, block {number}", "exec"), {})
    assert number == 2


def test_the_library_page_names_what_is_there() -> None:
    text = (DOCS / "library.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (DOCS / target).is_file(), target
    for name in re.findall(r"`(aligncli\.[\w.]+)`", text):
        place = DOCS.parent / name.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), name
    rows = re.findall(r"^\| (.*) \| `(aligncli\.[\w.]+)` \|$", text, re.MULTILINE)
    named = [(module, name) for what, module in rows for name in re.findall(r"`(\w+)", what)]
    assert len(named) > 8
    for module, name in named:
        assert hasattr(import_module(module), name), f"{module}.{name}"
