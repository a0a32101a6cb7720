"""Ctrl-C and SIGTERM end a run soon, whatever it was doing: scoring, waiting for a camera, hanging in one."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from support.mjpeg_server import MjpegServer
from support.processes import started
from support.repeating import repeating

SUPPORT = Path(__file__).parents[1] / "support"
SLOW, HANGING = SUPPORT / "slow_to_score.py", SUPPORT / "hanging_step.py"
PLAIN = ("--configuration", "plain_32x48", "--threads", "1")
SOON_S = 10.0
"""The aim is 2 s; what hangs here would hang for thirty and more."""


def read_results(process: subprocess.Popen, count: int) -> None:
    """Wait until so many lines of `--json-lines -` have come."""
    assert process.stdout is not None
    for _ in range(count):
        assert "frame_index" in json.loads(process.stdout.readline())


def test_ctrl_c_leaves_a_second_for_the_score_and_says_how_much_was_scored(bundle):
    with started(SLOW, "run", bundle.root, "--source", "slow", *PLAIN, "--json-lines", "-") as process:
        read_results(process, 60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    # A second's worth; all of the run would be six and more.
    assert 1 <= said.count("scoring") <= 11
    assert f"interrupted: scored {said.count('scoring')} of " in said
    assert said.splitlines()[-1] == "edgeseg: interrupted"


def test_a_second_ctrl_c_ends_it_at_once(bundle):
    with started(SLOW, "run", bundle.root, "--source", "slow", *PLAIN, "--json-lines", "-") as process:
        read_results(process, 60)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == "scoring\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "edgeseg: interrupted"
    assert "Traceback" not in said
    assert "sLAmIoU" not in said


def test_ctrl_c_ends_the_scoring_of_a_run_that_is_over_and_keeps_its_summary(bundle):
    with started(SLOW, "run", bundle.root, "--source", "slow", *PLAIN, "--seconds", "1") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "scoring\n"
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "configuration  plain_32x48" in shown
    assert "interrupted" in said


def test_nothing_is_scored_after_sigterm(bundle):
    with started(SLOW, "run", bundle.root, "--source", "slow", *PLAIN, "--json-lines", "-") as process:
        read_results(process, 20)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "scoring" not in said


@pytest.fixture
def server():
    pytest.importorskip("av")
    with MjpegServer() as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_a_read_of_the_camera_hangs(bundle, server, number):
    grey = np.full((32, 48, 3), 99, np.uint8)
    options = ("--stall", "60", "--fps", "50", "--json-lines", "-")
    with started("-m", "edgeseg", "run", bundle.root, "--source", server.url, *PLAIN, *options) as process:
        with repeating(lambda _: server.send(grey), every_s=0.01):
            read_results(process, 3)
        begin_s = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=45)
    assert process.returncode == 128 + number
    assert time.monotonic() - begin_s < SOON_S
    assert "Traceback" not in said
    assert "results" in said


def test_ctrl_c_ends_it_while_the_camera_does_not_answer(bundle, server):
    with started("-m", "edgeseg", "run", bundle.root, "--source", server.url, *PLAIN) as process:
        server.wait_for_connections(1)
        begin_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=45)
    assert process.returncode == 130
    assert time.monotonic() - begin_s < 5
    assert said == "edgeseg: interrupted\n"


@pytest.mark.parametrize("options", [(), ("--step-limit-s", "50")], ids=["alone", "watched"])
def test_ctrl_c_ends_it_while_a_step_hangs_and_keeps_the_summary(bundle, tmp_path, options):
    lines = tmp_path / "lines"
    source = ("--source", "street:32x48@30", "--json-lines", lines)
    with started(HANGING, "run", bundle.root, *source, *PLAIN, *options) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "hanging\n"
        begin_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=45)
    assert process.returncode == 130, said
    assert time.monotonic() - begin_s < SOON_S
    assert "results        2 in" in shown
    assert "a step of plain_32x48 does not return" in said
    assert "Traceback" not in said
    assert len(lines.read_text().splitlines()) == 2
