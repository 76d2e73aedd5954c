"""Every command line in help texts and documents is one that the real command line takes; the cheap ones run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligncli.cli.examples import EXAMPLES
from tests.cli.command_line import Run
from tests.cli.parsing import ROOT, commands, parse

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]*)`")


def _in_blocks(text: str) -> Iterator[str]:
    """Command lines of shell blocks, without comments, prompts and variables before them."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||;|(?<!\|)\|(?!\|)|>", line.split(" #")[0]):
                words = re.sub(r"^\s*(\$ )?(\w+=\S+ )*", "", part).rstrip("& ")
                if words.startswith("aligncli "):
                    yield words


def _in_spans(text: str) -> Iterator[str]:
    """What stands between backticks outside blocks, with placeholders and alternatives as people write them."""
    for span in SPAN.findall(BLOCK.sub("", text)):
        words = span.replace("\\|", "|")
        if words.startswith("aligncli ") and re.match(r"aligncli (-|[a-z])", words):
            yield words


BLOCK_LINES = [(path.name, line) for path in DOCUMENTS for line in _in_blocks(path.read_text(encoding="utf-8"))]
SPAN_LINES = [(path.name, line) for path in DOCUMENTS for line in _in_spans(path.read_text(encoding="utf-8"))]


def _alternatives(words: list[str]) -> list[Any]:
    """The commands that `aligncli data check|stats FOLDER` names. Raises KeyError for one that does not exist."""
    found = []
    for name in words[0].split("|"):
        command = ROOT.commands[name]
        inner = getattr(command, "commands", {})
        named = [word for word in words[1:2] if inner and not word.startswith("-")]
        found += [inner[below] for below in named[0].split("|")] if named else [command]
    return found


@pytest.mark.parametrize("words", [" ".join(name) for name, _ in commands()])
def test_every_commands_help_ends_in_examples(run: Run, words: str) -> None:
    ended = run(*words.split(), "--help")
    assert EXAMPLES[words]
    assert ended.stdout.endswith("".join(["Examples:\n", *(f"    {line}\n" for line in EXAMPLES[words])]))


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_is_a_command_line_of_its_command(line: str) -> None:
    words = next(words for words, lines in EXAMPLES.items() if line in lines)
    assert line.startswith(f"aligncli {words}")
    parse(shlex.split(line)[1:])


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert set(EXAMPLES) == {" ".join(words) for words, _ in commands()}


def test_documents_show_command_lines() -> None:
    assert len(BLOCK_LINES) > 10
    assert len(SPAN_LINES) > 40


@pytest.mark.parametrize(("document", "line"), BLOCK_LINES)
def test_the_command_lines_of_shell_blocks_are_taken(document: str, line: str) -> None:
    parse(shlex.split(line)[1:])


@pytest.mark.parametrize(("document", "line"), SPAN_LINES)
def test_commands_and_options_named_in_a_sentence_exist(document: str, line: str) -> None:
    words = line.replace("[", "").replace("]", "").split()[1:]
    found = [ROOT] if words[0].startswith("-") else _alternatives(words)
    known = {option for command in found for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in words if word.startswith("--") and word != "--"} <= known


@pytest.mark.parametrize("line", ["aligncli recipes list", "aligncli recipes list --json"])
def test_cheap_examples_run(run: Run, line: str) -> None:
    assert run(*line.split()[1:]).code == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_to_pages_and_pictures_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if Path(target).suffix and not (path.parent / target).is_file()] == []


def test_the_index_of_the_documentation_names_every_page() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version("aligncli")
    assert citation["preferred-citation"]["title"].startswith("Revisiting Feature Alignment")
    assert f"## {version('aligncli')} " in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
