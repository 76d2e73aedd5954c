"""A study as files to keep: Markdown for people, JSON for programs, both written beside its runs."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aligncli.analysis.bench.machine import Machine
from aligncli.engine.claims import ClaimResult, count_verdicts, explain_margins
from aligncli.engine.run_folder import write_json, write_text
from aligncli.engine.study_results import StudyResult, claims_of
from aligncli.engine.study_rows import RowResult
from aligncli.plain import only_finite

CLAIM_COLUMNS = {"claim": "---", "metric": "---", "margin": "--:", "paper's": "--:", "": "---"}  # and how they align


@dataclass(frozen=True)
class Chapter:
    """A study as it is told. note: its own remark. pictures: PNG files in or below the report's folder, by caption."""

    result: StudyResult
    note: str = ""
    pictures: Mapping[str, Path] = field(default_factory=dict)


def write_report(chapter: Chapter, folder: Path, *, machine: Machine) -> Path:
    """Write STUDY-SCALE.md and .json into `folder`; returns the former. Names of changed recipes end in a hash."""
    folder.mkdir(parents=True, exist_ok=True)
    result = chapter.result
    path = folder / f"{stem_of(result)}.md"
    date = _today()
    write_json(path.with_suffix(".json"), only_finite({"date": date, "machine": asdict(machine), **result.to_json()}))
    write_text(path, to_markdown(chapter, folder, machine=machine, date=date))
    return path


def write_summary(chapters: Sequence[Chapter], folder: Path, *, machine: Machine) -> Path:
    """Write paper-SCALE.md into `folder`: all claims, then all tables; returns its path."""
    date, results = _today(), [chapter.result for chapter in chapters]
    claims = claims_of(results)
    seeds = "one seed, so that the sign alone decides" if results[0].seeds == 1 else f"{results[0].seeds} seeds"
    lines = [
        "# Revisiting Feature Alignment for One-stage Object Detection: ours beside the paper's",
        "",
        f"Scale {results[0].scale}, {seeds}: {count_verdicts([claim for _, claim in claims])}.",
        "",
        _line(["", *CLAIM_COLUMNS]),
        _line(["---", *CLAIM_COLUMNS.values()]),
        *(_line([table, *_claim_cells(claim)]) for table, claim in claims),
        "",
        explain_margins([claim for _, claim in claims]),
        "",
    ]
    tables = [to_markdown(chapter, folder, machine=machine, date=date) for chapter in chapters]
    path = folder / f"paper{stem_of(results[0]).removeprefix(results[0].study)}.md"
    write_text(path, "\n".join([*lines, *tables]))
    return path


def stem_of(result: StudyResult) -> str:
    """`alignment-small`, and `alignment-small-1f3a09` where recipes were changed."""
    return f"{result.study}-{result.scale}{changed_suffix(result.changes)}"


def changed_suffix(changes: Mapping[str, object]) -> str:
    """Of what is made with changed recipes, so that a trial replaces no table; nothing where they are as packaged."""
    text = json.dumps(changes, sort_keys=True, default=str)
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}" if changes else ""


def to_markdown(chapter: Chapter, folder: Path, *, machine: Machine, date: str) -> str:
    """The table, ours and the paper's in rows of their own, claims, pictures, and what it was measured on.

    `folder` is where it will lie, for links to the pictures.
    """
    result = chapter.result
    seeds = "one seed" if result.seeds == 1 else f"mean ± standard deviation of {result.seeds} seeds"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    where = f"{machine.processor}, {machine.num_cores} cores" if machine.device == "cpu" else machine.device
    trained = f"Trained on {'; '.join(result.machines) or 'machines that the runs do not name'}."
    lines = [
        f"## {result.table}: {result.title}",
        "",
        f"Scale {result.scale}, {seeds}{_settings(result)}. {trained} Table made on {where}; {versions}; {date}. "
        f"{chapter.note}".rstrip(),
        "",
        *_results(result),
    ]
    if result.claims:
        lines += ["", *_claims(result.claims)]
    for caption, picture in chapter.pictures.items():
        lines += ["", f"![{caption}]({picture.relative_to(folder).as_posix()})"]
    return "\n".join(lines) + "\n"


def _settings(result: StudyResult) -> str:
    """What differs from the study as it is packaged."""
    data = f", data {result.data}" if result.data else ""
    return data + "".join(f", --set {key}={value}" for key, value in result.changes.items())


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _results(result: StudyResult) -> list[str]:
    columns = ["", "", *result.metrics, f"Δ {result.metrics[0]}", "minutes a run"]
    lines = [_line(columns), _line(["---", "---", *["--:"] * (len(columns) - 2)])]
    for row in result.rows:
        papers = [_number(row.paper.get(metric, math.nan)) for metric in result.metrics]
        if row.cited:
            lines.append(_line([f"{row.label} ({row.detail})" if row.detail else row.label, "cited", *papers, "", ""]))
            continue
        if row.measured:
            ours = [_with_spread(row, metric) for metric in result.metrics]
            gain = "" if row.delta is None else _signed(row.delta.mean, row.delta.spread)
            lines.append(_line([row.label, "ours", *ours, gain, _number(row.seconds / 60)]))
        if row.paper:
            gain = "" if row.delta is None else _signed(row.delta.paper)
            lines.append(_line(["" if row.measured else row.label, "paper", *papers, gain, ""]))
    return lines


def _claims(claims: Sequence[ClaimResult]) -> list[str]:
    head = [_line(list(CLAIM_COLUMNS)), _line(list(CLAIM_COLUMNS.values()))]
    return [*head, *(_line(_claim_cells(claim)) for claim in claims), "", explain_margins(claims)]


def _claim_cells(claim: ClaimResult) -> list[str]:
    ours, papers = _signed(claim.margin, claim.noise), _signed(claim.paper_margin)
    return [claim.text, claim.metric, ours, papers, f"**{claim.verdict}**"]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _with_spread(row: RowResult, metric: str) -> str:
    spread = row.spread[metric]
    return _number(row.mean[metric]) + ("" if math.isnan(spread) else f" ± {spread:.1f}")


def _signed(value: float, spread: float = math.nan) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.1f}" + ("" if math.isnan(spread) else f" ± {spread:.1f}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
