"""The code of the documentation runs as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aligncli.cli.app import main

DOCS = Path(__file__).parents[1] / "docs"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(3))
def test_the_operators_page_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks("roi_conv.md")
    assert len(blocks) == 3
    exec(compile(blocks[number], f"docs/roi_conv.md, block {number}", "exec"), {})


def test_what_the_operators_page_says_to_carry_along_is_all_that_it_needs(tmp_path: Path) -> None:
    text = (DOCS / "roi_conv.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"carry it along instead, copy (.*?): the operator", text, re.DOTALL)
    for name in re.findall(r"`(\S+)`", sentence):
        source, target = DOCS.parent / name, tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (tmp_path / "aligncli" / "__init__.py").touch()  # or the installed package would be found
    code = (
        f"import aligncli.ops, torch; assert aligncli.ops.__file__.startswith({str(tmp_path)!r})\n"
        "layer = aligncli.ops.RoIConv2d(3, 4, 3, stride=8, backend='portable')\n"
        "assert layer(torch.randn(1, 3, 5, 6), torch.rand(1, 5, 6, 4)).shape == (1, 4, 5, 6)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


@pytest.mark.parametrize("page", ["roi_conv.md", "extending.md", "report.md"])
def test_a_page_links_to_what_is_there(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (DOCS / target).is_file(), target


def aligncli(*arguments: str) -> None:
    """Run the command, which has to succeed."""
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--device", "cpu"])
    assert exit_.value.code == 0


@pytest.mark.parametrize("number", range(3))
def test_the_files_of_the_extending_page_train_and_evaluate(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks("extending.md")
    assert len(blocks) == 3
    name = blocks[number].splitlines()[0].removeprefix("# ")
    assert name in ("my_dpm.py", "my_alignment.py", "my_backbone.py")
    Path(name).write_text(blocks[number], encoding="utf-8")
    short = {"schedule.iterations": 3, "schedule.batch_size": 2, "data.num_train": 6, "data.num_val": 2}
    settings = [word for key, value in short.items() for word in ("--set", f"{key}={value}")]
    settings += [] if name == "my_alignment.py" else ["--no-report"]  # whose alignment a report measures
    aligncli("train", name, "--out", "run", *settings)
    trained = Path("run/evaluation.json").read_text()
    aligncli("eval", "run", "--code", name)
    assert same_metrics(trained, Path("run/evaluation.json").read_text())


def same_metrics(*evaluations: str) -> bool:
    first, second = (json.loads(text)["metrics"] for text in evaluations)
    return first == second


def test_the_extending_page_names_places_that_exist() -> None:
    package = DOCS.parent / "aligncli"
    text = (DOCS / "extending.md").read_text(encoding="utf-8").partition("## Inside the package")[2]
    named = set(re.findall(r"`((?:config|build|models|cli)/\w+\.py)`", text))
    assert len(named) >= 8
    for place in named:
        assert (package / place).is_file(), place


def test_what_a_page_names_in_a_file_is_defined_there() -> None:
    """ "`build_neck` of `build/parts.py`": a function, a class or a name at the top of that file."""
    named = set()
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md"), *DOCS.glob("results/*.md")):
        text = page.read_text(encoding="utf-8")
        named |= set(re.findall(r"`(\w+)`(?: \([^)]*\))?\s(?:of|in)\s`([\w/]+\.py)`", text))
    assert len(named) >= 7
    for symbol, place in named:
        paths = [root / place for root in (DOCS.parent, DOCS.parent / "aligncli") if (root / place).is_file()]
        assert paths, place
        defined = re.compile(rf"^(?:def |class )?{symbol}\s*[(:=]", re.MULTILINE)
        assert defined.search(paths[0].read_text(encoding="utf-8")), f"{symbol} in {place}"


def test_the_reliability_page_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "reliability.md").read_text(encoding="utf-8")))
    written = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    assert len(named) >= 30
    assert not [name for name in named if f"def {name}(" not in written]
