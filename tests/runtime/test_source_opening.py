"""What a source's name stands for, and which options contradict it."""

import threading

import pytest

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.source_opening import open_source
from support.videos import read_all, write_video


def test_a_file_by_its_url_is_a_file(tmp_path):
    write_video(tmp_path / "v w.avi")
    source = open_source(f"file://{tmp_path}/v%20w.avi", paced=False)
    assert len(read_all(source)) == 12
    source.close()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no video file"):
        open_source(tmp_path / "v.mp4")


def test_what_is_no_source_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a object is no source .* Session\.step"):
        open_source(object())


@pytest.mark.parametrize("name", ["", " "])
def test_a_source_without_a_name_is_refused(name):
    with pytest.raises(InputError, match="got an empty one"):
        open_source(name)


def test_a_split_of_what_has_none_is_refused(tmp_path):
    write_video(tmp_path / "v.avi")
    for source in (tmp_path / "v.avi", str(tmp_path / "v.avi"), 0, "rtsp://cam/1", iter(())):
        with pytest.raises(InputError, match="--split names a part of a data set"):
            open_source(source, split="val")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be played"):
        open_source(tmp_path)


def test_a_missing_camera_is_refused():
    with pytest.raises(SourceError, match="camera 97 cannot be opened"):
        open_source("97")


def test_a_camera_cannot_be_read_as_fast_as_possible():
    with pytest.raises(InputError, match="no-pace"):
        open_source("0", paced=False)


def test_the_simulator_is_a_source_with_labels():
    source = open_source("street", fps=15)
    frame = source.read(threading.Event())
    assert frame.rgb.shape == (*source.size_hw, 3)
    assert source.labels(0).shape == source.size_hw
    assert source.classes.names[0] == "sky"


def test_the_simulators_size_and_rate_are_in_its_name():
    source = open_source("street:64x96@20", fps=20)
    assert (source.size_hw, source.fps) == ((64, 96), 20.0)


def test_the_simulator_drives_for_a_minute_at_any_rate():
    assert open_source("street:64x96@5", paced=False).labels(299) is not None
    assert open_source("street:64x96", fps=5, paced=False).labels(300) is None


def test_two_frame_rates_of_the_simulator_contradict_each_other():
    with pytest.raises(InputError, match="street@20 and --fps 30 both give a frame rate"):
        open_source("street@20", fps=30)


def test_a_data_set_is_a_source_with_labels(camvid_root):
    source = open_source(camvid_root)
    assert source.fps == 15.0
    assert source.labels(0).shape == source.size_hw
