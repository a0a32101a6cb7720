"""Progress of an export where there is no terminal: a line per stage, and now and then how far a long one is."""

import json
from functools import partial

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.cli.export_progress import ExportProgress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_each_stage_has_a_line_once_the_work_has_lasted_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ExportProgress(line_every_s=10, clock=clock) as progress:
        for stage in ("graphs a", "graphs b", "parity a"):
            progress.stage(stage, 1)
            assert lines(capsys) == []
            clock.now_s += 3
            progress.advance()
        clock.now_s += 3
        progress.stage("parity b", 1)
        assert lines(capsys) == ["graphs a", "graphs b", "parity a", "parity b"]
        progress.stage("manifest", 1)
        assert lines(capsys) == ["manifest"]


def test_nothing_is_said_when_it_is_over_soon(capsys: pytest.CaptureFixture[str]) -> None:
    """So a mistake that is found at once is a message of one line."""
    clock = Clock()
    with ExportProgress(line_every_s=10, clock=clock) as progress:
        progress.stage("graphs a", 3)
        clock.now_s += 9
        progress.advance()
    assert lines(capsys) == []


def test_long_stage_says_every_so_often_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ExportProgress(line_every_s=10, clock=clock) as progress:
        progress.stage("accuracy", 50)
        for _ in range(7):
            clock.now_s += 4
            progress.advance()
    # Steps 3 and 6 end 12 and 24 s after the start.
    assert lines(capsys) == ["accuracy", "accuracy: 3 of 50, 0:03:08 left", "accuracy: 6 of 50, 0:02:56 left"]


def test_time_left_is_never_negative_when_a_stage_takes_more_steps_than_thought(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with ExportProgress(line_every_s=10, clock=clock) as progress:
        progress.stage("accuracy", 2)
        for _ in range(3):
            clock.now_s += 10
            progress.advance()
    assert lines(capsys)[-1] == "accuracy: 3 of 2, 0:00:00 left"


def test_time_left_is_that_of_the_stage_and_not_of_those_before(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ExportProgress(line_every_s=10, clock=clock) as progress:
        progress.stage("graphs", 1)
        clock.now_s += 1000
        progress.advance()
        progress.stage("accuracy", 3)
        clock.now_s += 10
        progress.advance()
    assert lines(capsys)[-1] == "accuracy: 1 of 3, 0:00:20 left"


def test_export_says_on_standard_error_what_it_is_at_and_leaves_standard_output_to_json(
    checkpoint, video, tmp_path, monkeypatch
):
    pytest.importorskip("torch", reason="exporting needs the export extra")
    monkeypatch.setattr("edgeseg.cli.export_progress.ExportProgress", partial(ExportProgress, line_every_s=0))
    options = ("--data", video, "--max-offset", 1, "--labels-stride", 4, "--rho", "dense", "--rho", 0, "--sweep")
    options += ("--size", "48x64", "--compensation", "late-warp", "--threads", 1, "--json")
    arguments = ("export", checkpoint, "--out", tmp_path / "a.edgeseg", *options)
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    dense, masked = (row["name"] for row in json.loads(result.stdout)["configurations"])
    said = [line for line in result.stderr.splitlines() if " left" not in line]
    assert said == [
        f"graphs of {dense} (1 of 2)",
        f"graphs of {masked} (2 of 2)",
        f"parity of {dense} (1 of 2)",
        f"parity of {masked} (2 of 2)",
        "accuracy of 2 configurations, as labels come and moved in 1 way",
        "manifest",
    ]


def test_help_says_what_an_export_takes_its_time_for():
    text = " ".join(CliRunner().invoke(main, ["export", "--help"]).output.split())
    assert "accuracy tables take most of the time: each configuration runs on every frame of the split" in text
    assert "--sweep multiplies what is given by three sizes and two strides" in text
