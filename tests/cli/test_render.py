"""Output for people and programs, and progress with and without a terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from aligncli.catalog import load_recipe
from aligncli.cli.progress import LineDisplay, ProgressReporter, duration
from aligncli.cli.render import LiveDisplay, Output
from aligncli.cli.tables import Styled, number
from aligncli.engine.reporter import Reporter
from aligncli.plain import printable

RECIPE = load_recipe("quickstart")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _start(reporter: Reporter, *, first: int = 0) -> None:
    reporter.start(iterations=100, first=first, recipe=RECIPE, num_parameters=812_000, num_images=2000)


def _record(iteration: int, **losses: float) -> dict[str, float]:
    speed = {"images_per_second": 80.0, "eta_seconds": 65.0, "memory": 1.2e9}
    return {"iteration": iteration, "lr": 0.1, **speed, **losses}


def test_json_mode_prints_one_value_and_drops_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.heading("title", "text")
    output.line("line")
    output.fields({"name": "value"})
    output.table(("a", "b"), [("x", "1")])
    output.note("beside")
    output.data({"AP": 1.5})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"AP": 1.5}
    assert captured.err == "beside\n"


def test_for_people_there_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.data({"AP": 1.5})
    output.line("line")
    assert capsys.readouterr().out == "line\n"


def test_undefined_metrics_are_null_in_json_and_a_dash_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).data({"APs": float("nan"), "rows": [{"AP": float("nan")}, (1.0, 2.0)]})
    assert json.loads(capsys.readouterr().out) == {"APs": None, "rows": [{"AP": None}, [1.0, 2.0]]}
    assert number(float("nan")) == "-"
    assert number(37.94) == "37.9"


def test_a_long_path_is_not_broken_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/" + "x" * 300
    Output().line(path)
    assert capsys.readouterr().out == path + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\nb", "a b"), ("[bold]", "[bold]"), ("\x1b[2J", "�[2J"), ("a\u202eb", "a�b"), ("ü日", "ü日")],
)
def test_printable_text_is_one_line_without_control_codes(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (65, "1:05"), (3599.6, "1:00:00"), (3725, "1:02:05")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    clock, lines = Clock(), []
    reporter: Reporter = ProgressReporter(LineDisplay(lines.append, clock), clock=clock)
    _start(reporter)
    assert lines == ["0.81 M parameters, 2,000 training images, 8 images a step"]
    lines.clear()
    for iteration in range(1, 101):
        clock.now += 0.5
        reporter.step(_record(iteration, **({"loss": 2.5} if iteration % 10 == 0 else {})))
    known = "lr 0.1  memory 1.2 GB  80.0 images/s  ETA 1:05"
    assert lines[0] == f"training 1/100  {known}"
    assert lines[1] == f"training 21/100  loss 2.500  {known}"
    assert lines[-1].startswith("training 100/100")
    assert len(lines) == 6  # the first, one each ten seconds, the last


def test_evaluation_tells_how_long_it_will_take() -> None:
    clock, lines = Clock(), []
    reporter = ProgressReporter(LineDisplay(lines.append, clock), clock=clock)
    for done in (10, 20, 30, 40):
        reporter.evaluation(done=done, total=40)
        clock.now += 20
    assert lines == [
        "evaluating 10/40",
        "evaluating 20/40  ETA 0:40",
        "evaluating 30/40  ETA 0:20",
        "evaluating 40/40",
    ]


def test_the_end_of_a_stage_is_told_once_and_again_when_it_comes_again() -> None:
    clock, lines = Clock(), []
    display = LineDisplay(lines.append, clock)
    for done in (1, 2, 2, 2, 1, 2):
        display.show("evaluating", done, 2, "")
    assert lines == ["evaluating 1/2", "evaluating 2/2", "evaluating 2/2"]


def test_the_header_waits_for_the_first_report_and_comes_once() -> None:
    lines: list[str] = []
    reporter = ProgressReporter(LineDisplay(lines.append), ["recipe: quickstart"])
    assert lines == []
    reporter.message("lr: 0.1")
    _start(reporter)
    assert lines[:2] == ["recipe: quickstart", "lr: 0.1"]
    assert lines.count("recipe: quickstart") == 1


def test_a_resumed_run_says_where_it_goes_on() -> None:
    lines: list[str] = []
    _start(ProgressReporter(LineDisplay(lines.append)), first=40)
    assert lines[-1] == "resumed after iteration 40"


def test_on_a_terminal_there_is_a_bar_with_loss_rate_and_eta() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, force_interactive=True, width=100, color_system=None)
    reporter: Reporter = ProgressReporter(LiveDisplay(console))
    _start(reporter)
    reporter.step(_record(50, loss=1.25))
    reporter.evaluation(done=3, total=4)
    reporter.message("[a message]")
    reporter.finish()
    shown = screen.getvalue()
    for text in ("training", "50/100", "1.250", "80.0 images/s", "ETA 1:05", "evaluating", "3/4", "[a message]"):
        assert text in shown


def test_a_terminal_shows_losses_with_a_curve_and_the_last_ap_below_the_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100, color_system=None)
    reporter: Reporter = ProgressReporter(LiveDisplay(console))
    _start(reporter)
    for iteration in range(1, 9):
        reporter.step(_record(iteration, loss=9.0 - iteration, box_loss=1.0, class_loss=2.0))
    reporter.evaluated(iteration=8, metrics={"AP": 41.23})
    reporter.step(_record(9))
    reporter.finish()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    last = shown[shown.rindex("training") :]
    for text in ("9/100", "1.000  █", "▁", "box loss 1.000  class loss 2.000", "memory 1.2 GB", "AP 41.2 (after 8)"):
        assert text in last, text


def test_names_of_stages_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = LiveDisplay(console)
    display.show("[red]run\x1b[2J", 1, 2, "\x07")
    display.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]run�[2J" in shown
    assert "\x1b[2J" not in shown
    Output().table(("\x1b[2Jname", "two\nlines"), [("a", "b")])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "lines" in printed


def test_a_pipe_gets_lines_even_when_colours_are_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Output().progress() as reporter:
        _start(reporter)
        reporter.step(_record(1))
    assert "training 1/100" in capsys.readouterr().err


def test_trainings_side_by_side_are_told_in_a_line_that_says_what_is_left() -> None:
    written: list[str] = []
    clock = Clock()
    reporter = ProgressReporter(LineDisplay(written.append, clock), clock=clock)
    reporter.stage("training", done=0, total=60)
    reporter.runs({"conv-s0": (3, 30)}, ended=0, waiting=1)
    clock.now = 20.0
    reporter.stage("training", done=20, total=60)
    assert written == ["training 0/60", "training 20/60  runs: 0 done, 1 running, 1 waiting  ETA 0:40"]


def test_the_time_left_follows_the_work_where_its_parts_are_not_alike() -> None:
    """Half the iterations are a tenth of the work; the minute before the first iteration says nothing of the others."""
    written: list[str] = []
    clock = Clock()
    reporter = ProgressReporter(LineDisplay(written.append, clock), clock=clock)
    for now, done, share in ((0.0, 20, 0.2), (60.0, 20, 0.2), (70.0, 40, 0.3)):
        clock.now = now
        reporter.stage("training", done=done, total=60, share=share)
    assert written == ["training 20/60", "training 20/60", "training 40/60  ETA 1:10"]


def test_a_terminal_shows_a_bar_for_each_training_that_runs() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = LiveDisplay(console)
    display.show("training", 10, 60, "ETA 0:40")
    display.parts({"conv-s0": (3, 30), "[roi]-s0": (7, 30)})
    display.parts({"[roi]-s0": (30, 30)})
    display.close()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "conv-s0" in shown
    last = shown[shown.rindex("training") :]
    assert "roi" in last
    assert "conv-s0" not in last


def test_cells_can_have_a_colour_that_a_log_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("", "gain"), [("a", Styled("+1.0", "green"))])
    assert "+1.0" in capsys.readouterr().out


def test_a_users_text_is_never_markup_or_a_control_code(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[bold]a[/] \x1b[31m\x07\x9b2Jb"
    output = Output()
    output.note(name)
    output.line(name)
    output.heading(name, name)
    output.fields({name: name})
    output.table(("text", "x"), [(name, Styled(name, "green"))], title=name)
    screen = io.StringIO()
    display = LiveDisplay(Console(file=screen, force_terminal=True, width=100, color_system=None), "waiting")
    display.message(name)
    display.show("training", 1, 2, "")
    display.parts({name: (1, 2)})
    display.close()
    captured = capsys.readouterr()
    for printed in (captured.out, captured.err, screen.getvalue()):
        assert "[bold]a[/]" in printed
        for code in ("\x1b[31m", "\x07", "\x9b"):
            assert code not in printed
