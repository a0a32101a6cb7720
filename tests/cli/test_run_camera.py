"""`edgeseg run` in front of a network camera that is lost and comes back."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from support.mjpeg_server import MjpegServer
from support.repeating import repeating
from support.waiting import until

PLAIN = ("--configuration", "plain_32x48", "--threads", "1")


@pytest.fixture
def filming():
    """A camera that gives fifty pictures a second."""
    pytest.importorskip("av")
    red = np.full((32, 48, 3), (200, 0, 0), np.uint8)
    with MjpegServer() as server, repeating(lambda number: server.send(red), every_s=0.02):
        yield server


def test_run_goes_on_when_the_camera_is_lost_and_tells_of_it_in_json(bundle, filming, tmp_path):
    lines = tmp_path / "lines"

    def disturb() -> None:
        until(lambda: lines.exists() and lines.read_text() != "")
        filming.send(b"garbage" * 30)
        filming.cut()

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    result = CliRunner().invoke(
        main, ["run", str(bundle.root), "--source", filming.url, *PLAIN, "--fps", "50", "--frames", "60",
               "--retry-most", "0.1", "--json", "--json-lines", str(lines)],
    )  # fmt: skip
    disturbing.join()
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["results"] == 60
    assert (values["reconnects"], values["stalls"], values["corrupt_frames"]) == (1, 0, 1)


def test_run_turns_the_pictures(bundle, filming, tmp_path):
    result = CliRunner().invoke(
        main, ["run", str(bundle.root), "--source", filming.url, *PLAIN, "--frames", "3", "--rotate", "180",
               "--colour-order", "bgr", "--json-lines", str(tmp_path / "lines")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert " frames/s, measured\n" in result.stdout
    # What was red is blue.
    assert [json.loads(line)["pixels"] for line in (tmp_path / "lines").read_text().splitlines()] == [
        {"2": 32 * 48}
    ] * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--camera-size", "480x640"), "--camera-size: for cameras"),
        (("--give-up", "3"), "--give-up and --open-limit: for cameras"),
        (("--open-limit", "20"), "--give-up and --open-limit: for cameras"),
    ],
)
def test_options_of_cameras_are_refused_for_a_recording(bundle, options, words):
    result = CliRunner().invoke(main, ["run", str(bundle.root), "--source", "street", *PLAIN, *options])
    assert result.exit_code == 2
    assert words in result.output


def test_run_waits_for_a_camera_that_comes_later_when_told_to(bundle, filming):
    filming.refuses = True

    def come() -> None:
        filming.wait_for_refusals(2)
        filming.refuses = False

    coming = threading.Thread(target=come)
    coming.start()
    result = CliRunner().invoke(
        main, ["run", str(bundle.root), "--source", filming.url, *PLAIN, "--fps", "50", "--frames", "3", "--wait",
               "--retry-most", "0.1", "--json"],
    )  # fmt: skip
    coming.join()
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["results"] >= 3


@pytest.mark.parametrize("source", ["street", "missing.mp4"])
def test_run_does_not_wait_for_what_is_no_camera(bundle, source, monkeypatch):
    monkeypatch.setattr("edgeseg.runtime.source_wait.open_when_there", lambda *_, **__: pytest.fail("waited"))
    result = CliRunner().invoke(main, ["run", str(bundle.root), "--source", source, *PLAIN, "--wait"])
    assert result.exit_code == 2
    assert f"--wait: for cameras and streams | got {source}" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--save", "{folder}/have.mp4"), "have.mp4 exists | --overwrite replaces it"),
        (("--save", "drive.avi"), "videos are written as .mp4"),
        (("--save-labels", "/proc/labels"), "/proc/labels cannot be written"),
        (("--configuration", "nonsense"), "has no configuration 'nonsense'"),
        (("--profile", "missing.json"), "no device profile at missing.json"),
        (("--compensation", "forwards"), "unknown compensation 'forwards'"),
        (("--schedule", "newest"), "unknown schedule 'newest'"),
        (("--device", "npu"), "unknown device 'npu'"),
        (("--threads", "100000"), "threads lies between"),
        (("--compensation", "none", "--mark-invalid"), "--mark-invalid marks pixels of moved labels"),
    ],
)
def test_run_tells_of_a_mistake_before_it_waits(bundle, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr("edgeseg.runtime.source_wait.open_when_there", lambda *_, **__: pytest.fail("waited"))
    (tmp_path / "have.mp4").write_bytes(b"earlier")
    given = [option.format(folder=tmp_path) for option in options]
    result = CliRunner().invoke(main, ["run", str(bundle.root), "--source", "rtsp://cam/1", "--wait", *given])
    assert result.exit_code == 2
    assert words in result.stderr


def test_run_gives_a_camera_up_that_does_not_come(bundle, filming):
    filming.refuses = True
    result = CliRunner().invoke(
        main, ["run", str(bundle.root), "--source", filming.url, *PLAIN, "--wait", "--give-up", "0.2"]
    )
    assert result.exit_code == 2
    assert "cannot be opened" in result.stderr
    assert filming.refusals >= 2


def test_ctrl_c_ends_it_while_the_camera_is_away(bundle, filming):
    command = [sys.executable, "-m", "edgeseg", "run", str(bundle.root), "--source", filming.url, *PLAIN,
               "--json-lines", "-"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["frame_index"] >= 0
    filming.refuses = True
    filming.cut()
    filming.wait_for_refusals(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "results" in said
    assert "camera         lost and back 0 times, away at the end" in said
    assert "Traceback" not in said


def test_the_service_manager_hears_that_the_camera_is_waited_for_and_tried_again(bundle, filming, tmp_path):
    filming.refuses = True
    command = [sys.executable, "-m", "edgeseg", "run", str(bundle.root), "--source", filming.url, *PLAIN, "--wait",
               "--fps", "50"]  # fmt: skip
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.settimeout(20)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

        def hears(words: str) -> None:
            while words not in manager.recv(4096).decode():
                assert process.poll() is None

        try:
            hears("EXTEND_TIMEOUT_USEC=900000000\nSTATUS=http")
            filming.refuses = False
            hears("READY=1")
            filming.refuses = True
            filming.cut()
            hears("WATCHDOG=1\nSTATUS=lost the camera")
            hears("WATCHDOG=1")
            filming.refuses = False
            hears("STATUS=running plain_32x48")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
