"""Progress where there is no terminal: a line now and then, with the time left."""

import pytest

from edgeseg.training.progress import ProgressBar
from edgeseg.training.validation import Validation


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_line_is_printed_every_so_often_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    with ProgressBar("tiny", 50, line_every_s=10, clock=lambda: now[0]) as bar:
        for step in range(1, 8):
            bar.stepped(step, 0.5)
            now[0] += 4
    # Steps 4 and 7 end 12 and 24 s after the start, steps take 4 s.
    assert lines(capsys) == [
        "step 4 of 50: loss 0.500, val mIoU -, 0:03:04 left",
        "step 7 of 50: loss 0.500, val mIoU -, 0:02:52 left",
    ]


def test_time_left_counts_the_steps_of_this_run_when_it_was_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with ProgressBar("tiny", 1000, line_every_s=10, clock=lambda: now[0]) as bar:
        for step in (501, 502):
            bar.stepped(step, 0.5)
            now[0] += 10
        bar.stepped(503, 0.5)
    assert lines(capsys)[-1].endswith("1:22:50 left")


def test_validation_has_a_line_and_its_miou_stays(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with ProgressBar("tiny", 3, line_every_s=10, clock=lambda: now[0]) as bar:
        bar.stepped(1, 1.0)
        bar.validated(1, Validation(miou=0.25, moving_miou=float("nan"), iou={}, frames=1))
        now[0] += 20
        bar.stepped(2, 1.0)
    assert lines(capsys) == [
        "step 1 of 3: loss 1.000, val mIoU 0.2500, - left",
        "step 2 of 3: loss 1.000, val mIoU 0.2500, 0:00:20 left",
    ]
