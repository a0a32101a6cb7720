"""What is shown of an address, and where one with a password may be kept."""

import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.camera_report import examine_camera
from edgeseg.runtime.source_address import public_name, spelled_out
from edgeseg.runtime.source_opening import is_camera, open_source


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://cam/1", "rtsp://cam/1"),
        ("rtsp://admin:geheim@cam:554/Streaming/Channels/101", "rtsp://cam:554/Streaming/Channels/101"),
        ("rtsp://admin:p@ssw0rd@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:a/b@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:a b@cam/1", "rtsp://cam/1"),
        ("rtsp://admin:a?b@cam/1", "rtsp://..."),
        ("rtsp://admin:a#b@cam/1", "rtsp://..."),
        ("http://cam/x?user=admin&pwd=geheim", "http://cam/x"),
        ("http://cam/x?pwd=p@ssw0rd", "http://..."),
        ("rtsp://cam:554/user=admin&password=geheim&channel=1.sdp", "rtsp://cam:554/..."),
        ("http://[fe80::1]:8080/video;pwd=geheim", "http://[fe80::1]:8080/video"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(address, shown):
    assert public_name(address) == shown
    assert public_name(shown) == shown


def test_a_pipeline_is_shown_without_what_may_be_secret():
    pipeline = 'gst:rtspsrc location="rtsp://admin:p@ss@cam/1?a=b" user-id=admin user-pw = "geheim wort" ! decodebin'
    assert public_name(pipeline) == 'gst:rtspsrc location="rtsp://cam/1" user-id=... user-pw = ... ! decodebin'


@pytest.mark.parametrize("name", ["0", "camera 0", "csi:0", "street@15", "/home/me@work/v.mp4", "file:///me@x/v=1.mp4"])
def test_what_is_no_address_is_shown_as_it_is(name):
    assert public_name(name) == name


def test_an_address_is_the_first_line_of_its_file(tmp_path):
    (tmp_path / "camera").write_text("  rtsp://admin:geheim@cam/1 \nanother line\n")
    assert spelled_out(f"@{tmp_path}/camera") == "rtsp://admin:geheim@cam/1"
    assert is_camera(f"@{tmp_path}/camera")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"\nx", "its first line is empty"), (b"\xff\xfe", "it is not text")]
)
def test_a_file_without_an_address_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "camera").write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_source(f"@{tmp_path}/camera")


SECRET = "rtsp://admin:geheim@127.0.0.1:1/x?pwd=geheim"


@pytest.mark.parametrize(
    "refused",
    [
        lambda: open_source(SECRET),
        lambda: open_source(SECRET, fps=-1.0),
        lambda: open_source(SECRET, paced=False),
        lambda: open_source(SECRET, split="val"),
        lambda: open_source("gst:rtspsrc location=" + SECRET, fps=30),
        lambda: open_source("gst:rtspsrc location=" + SECRET),
        lambda: examine_camera(SECRET),
    ],
)
def test_no_message_holds_what_is_secret(refused, caplog):
    with pytest.raises(Exception, match=r".") as error:
        refused()
    assert "geheim" not in str(error.value)
    assert "geheim" not in caplog.text
