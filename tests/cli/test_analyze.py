"""`aligncli analyze-alignment`: tables, JSON, figures, and one line for what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from aligncli.analysis.alignment import figure4
from aligncli.analysis.explain import FIGURES
from tests.cli.command_line import Run


def is_a_picture(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and min(image.size) > 300


def test_a_run_gets_a_table_and_figures_beside_it(run: Run, trained_run: Path) -> None:
    ended = run("analyze-alignment", trained_run, "--images", 2, "--device", "cpu")
    assert ended.code == 0, ended.stderr
    assert "RoIConv" in ended.stdout
    assert "2 images" in ended.stdout
    folder = trained_run / "alignment"
    for name in ("distributions", "splits", "boxes"):
        assert is_a_picture(folder / f"{name}.png")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (folder / f"{name}.svg").read_text()
    # Two iterations make nobody confident: dashes, a note, no overlay.
    assert "no location has a score above 0.2" in ended.stderr
    assert not (folder / "overlay.png").exists()


def test_the_table_is_told_also_where_figures_cannot_be_written(
    run: Run, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "splits.png")

    monkeypatch.setattr(figure4, "save_figure", fail)
    ended = run("analyze-alignment", trained_run, "--images", 1, "--out", tmp_path, "--device", "cpu")
    assert ended.code == 2
    assert "quartiles" in ended.stdout
    assert "splits.png: No space left on device" in ended.stderr


def test_json_stands_alone_and_says_that_roi_conv_is_aligned(run: Run, trained_run: Path, tmp_path: Path) -> None:
    where = ("--out", tmp_path, "--images", 2, "--score", 0.001, "--json", "--device", "cpu")
    ended = run("analyze-alignment", trained_run, *where)
    assert ended.code == 0, ended.stderr
    assert set(ended.json) == {"score", "detectors", "files"}
    assert all(Path(path).is_file() for path in ended.json["files"])
    [detector] = ended.json["detectors"]
    assert set(detector) == {"name", "title", "images", "remarks", "comparisons"}
    refined, initial = detector["comparisons"]
    assert (refined["boxes"], initial["boxes"]) == ("refined anchors", "initial anchors")
    for row in refined["rows"]:
        assert set(row) == {"set", "split", "part", "locations", "mean", "quartiles", "above", "histogram"}
        assert sum(row["histogram"]) == row["locations"]
        assert row["mean"] == (1 if row["locations"] else None)
    whole, confident = (next(row for row in refined["rows"] if row["set"] == name) for name in ("all", "confident"))
    assert whole["locations"] == confident["locations"] == 2 * (16**2 + 8**2 + 4**2)


def test_several_runs_are_compared_and_untrained_ones_stand_beside_them(
    run: Run, trained_run: Path, tmp_path: Path
) -> None:
    ended = run(
        *("analyze-alignment", trained_run, "--untrained", "--images", 1, "--score", 0.001, "--device", "cpu"),
        *("--out", tmp_path),
    )
    assert ended.code == 0, ended.stderr
    assert f"{trained_run.name}, untrained" in ended.stdout
    assert (tmp_path / "distributions.png").is_file()


def test_a_detector_of_torchvisions_is_measured_on_a_folder(run: Run, data_folder: Path, tmp_path: Path) -> None:
    ended = run(
        *("analyze-alignment", "torchvision:ssdlite320_mobilenet_v3_large", "--data", data_folder, "--images", 1),
        *("--weights", "none", "--out", tmp_path, "--device", "cpu", "--json"),
    )
    assert ended.code == 0, ended.stderr
    [detector] = ended.json["detectors"]
    assert [each["boxes"] for each in detector["comparisons"]] == ["anchors", "centred anchors", "decoded boxes"]
    assert "anchors lie up to" in detector["remarks"][0]


def test_explain_draws_the_papers_figures(run: Run, tmp_path: Path) -> None:
    ended = run("analyze-alignment", "--explain", "--out", tmp_path, "--json")
    assert ended.code == 0, ended.stderr
    assert len(ended.json["files"]) == 3 * len(FIGURES)
    assert {Path(path).stem for path in ended.json["files"]} == set(FIGURES)
    assert all(is_a_picture(Path(path)) for path in ended.json["files"] if path.endswith(".png"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no detector given"),
        (("--explain", "some-run"), "--explain draws Figures 1 to 3 and measures nothing"),
        (("nowhere",), "nowhere"),
        (("torchvision:nothing_like_it",), "torchvision has no box detector 'nothing_like_it'"),
        (("torchvision:ssd300_vgg16", "--weights", "none"), "has no data of its own: add --data FOLDER"),
        (
            ("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", "--weights", "none"),
            "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn is no one-stage detector",
        ),
    ],
)
def test_faults_are_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = run("analyze-alignment", *arguments, "--device", "cpu")
    assert ended.code == 2
    assert ended.stdout == ""
    assert said in ended.stderr.splitlines()[-1]
