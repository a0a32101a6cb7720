"""What is told of a camera: its modes, by a driver that a test plays, and what a real stream gives."""

import errno
import json
import struct

import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.camera_report import examine_camera
from edgeseg.runtime.v4l2_modes import CameraMode, v4l2_modes
from support.mjpeg_server import MjpegServer
from support.repeating import repeating

SIZES = {b"MJPG": [(640, 480), (1280, 720)], b"YUYV": [(640, 480)]}
PERIODS = {(640, 480): [(1, 60), (1, 30)], (1280, 720): [(1001, 30000)]}


def driver(descriptor: int, request: int, buffer: bytearray) -> None:
    """Answers as the kernel does: the entry of a list, or EINVAL after its last one."""
    index = struct.unpack_from("=I", buffer)[0]
    try:
        if request == 0xC0405602:
            assert len(buffer) == 64
            buffer[44:48] = list(SIZES)[index]
        elif request == 0xC02C564A:
            assert len(buffer) == 44
            struct.pack_into("=III", buffer, 8, 1, *SIZES[bytes(buffer[4:8])][index])
        else:
            assert request == 0xC034564B
            assert len(buffer) == 52
            struct.pack_into("=III", buffer, 16, 1, *PERIODS[struct.unpack_from("=II", buffer, 8)][index])
    except IndexError:
        raise OSError(errno.EINVAL, "Invalid argument") from None


def test_modes_are_those_that_the_driver_lists(tmp_path):
    device = tmp_path / "video0"
    device.touch()
    assert v4l2_modes(str(device), driver) == [
        CameraMode("MJPG", (480, 640), (60.0, 30.0)),
        CameraMode("MJPG", (720, 1280), (29.97,)),
        CameraMode("YUYV", (480, 640), (60.0, 30.0)),
    ]


def test_the_largest_size_is_told_where_any_can_be_had(tmp_path):
    device = tmp_path / "video0"
    device.touch()

    def any_size(descriptor: int, request: int, buffer: bytearray) -> None:
        if struct.unpack_from("=I", buffer)[0] or request == 0xC034564B:
            raise OSError(errno.EINVAL, "Invalid argument")
        if request == 0xC0405602:
            buffer[44:48] = b"NV12"
        else:
            struct.pack_into("=7I", buffer, 8, 3, 32, 1920, 2, 32, 1080, 2)

    assert [str(mode) for mode in v4l2_modes(str(device), any_size)] == ["NV12 1080x1920 at not told frames/s"]


def test_a_file_that_is_no_camera_has_no_modes(tmp_path):
    (tmp_path / "video0").touch()
    assert v4l2_modes(str(tmp_path / "video0")) == []


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(SourceError, match="/dev/video97 cannot be opened"):
        v4l2_modes("/dev/video97")


def test_a_file_is_no_camera():
    with pytest.raises(InputError, match=r"v\.mp4 is no camera"):
        examine_camera("v.mp4")


@pytest.fixture
def filming():
    """A camera that gives fifty pictures a second, and a damaged one now and then."""
    pytest.importorskip("av")
    grey = np.full((32, 48, 3), 99, np.uint8)
    with (
        MjpegServer() as server,
        repeating(lambda number: server.send(b"garbage" * 30 if number % 20 == 19 else grey), every_s=0.02),
    ):
        yield server


def test_rate_size_and_age_of_a_stream_are_measured(filming):
    report = examine_camera(filming.url, seconds=1.0)
    assert 20 < report.fps < 60
    assert report.size_hw == (32, 48)
    assert 0 <= report.age_ms["p50"] < 500
    assert report.period_ms["max"] >= report.period_ms["p50"] > 0
    assert report.counts.corrupt >= 1


def test_doctor_tells_of_a_camera(filming):
    shown = CliRunner().invoke(main, ["doctor", "--camera", filming.url, "--seconds", "0.5"])
    assert shown.exit_code == 0, shown.output
    assert "32x48" in shown.stdout
    assert "frames/s measured" in shown.stdout


def test_doctor_tells_of_a_camera_in_json_turned_as_asked(filming):
    shown = CliRunner().invoke(
        main, ["doctor", "--camera", filming.url, "--seconds", "0.5", "--rotate", "90", "--json"]
    )
    values = json.loads(shown.stdout)
    assert values["size_hw"] == [48, 32]
    assert values["counts"]["reconnects"] == 0
