import os

import cv2
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import overlay_video
from edgeseg.runtime.sinks.video import whole_fragments_bytes
from support.small_disk import small_disk

av = pytest.importorskip("av")
SIZE_HW = (32, 48)


def decoded(path):
    """Mean RGB of each picture, by a decoder that refuses whatever is damaged."""
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return [picture.to_ndarray(format="rgb24").mean((0, 1)) for picture in container.decode(video=0)]


def test_each_result_is_shown_until_the_next_ones_frame(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for index in (0, 4, 5):
            sink.write(made(index))
    shown = [int(colour.argmax()) for colour in decoded(tmp_path / "v.mp4")]
    assert shown == [0, 0, 0, 0, 1, 2]


def test_the_times_are_those_of_the_source(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 29.97, SIZE_HW, made(0).classes) as sink:
        for index in range(31):
            sink.write(made(index))
    with av.open(str(tmp_path / "v.mp4")) as container:
        times = [float(picture.time) for picture in container.decode(video=0)]
    assert times == pytest.approx([index / 29.97 for index in range(31)], abs=1e-3)


def test_a_long_gap_is_a_gap_and_not_thousands_of_pictures(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for index in (0, 36_000, 36_001):
            sink.write(made(index))
    with av.open(str(tmp_path / "v.mp4")) as container:
        times = [float(picture.time) for picture in container.decode(video=0)]
    assert len(times) == 22
    assert times[-2:] == [3600.0, 3600.1]


def test_a_copy_of_the_growing_file_plays_but_for_the_last_half_second(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for index in range(43):
            sink.write(made(index))
        (tmp_path / "copy.mp4").write_bytes((tmp_path / "v.mp4").read_bytes())
    assert len(decoded(tmp_path / "copy.mp4")) >= 36
    assert len(decoded(tmp_path / "v.mp4")) == 43


def test_a_video_that_was_there_stays_until_the_first_half_second_is_written(made, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"old")
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        sink.write(made(0))
        sink.write(made(1))
        assert (tmp_path / "v.mp4").read_bytes() == b"old"
    assert len(decoded(tmp_path / "v.mp4")) == 2


def test_nothing_is_left_when_no_result_came(made, tmp_path):
    with (
        pytest.raises(InputError, match="without a frame"),
        overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_and_frames_of_another_size_are_taken(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, (33, 49), made(0).classes) as sink:
        sink.write(made(0, size_hw=(33, 49)))
        sink.write(made(1, size_hw=(20, 20)))
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert [capture.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)] == [32, 48]
    assert len(decoded(tmp_path / "v.mp4")) == 2


def test_the_video_plays_up_to_the_last_half_second_when_the_disk_is_full(made, tmp_path):
    with small_disk(tmp_path, 200_000):
        written = 0
        with (
            pytest.raises(InputError, match=r"No space left on device.*stays and plays"),
            overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink,
        ):
            for index in range(1000):
                sink.write(made(index, noise=True))
                written = index
        assert 20 <= written < 999
        assert written - len(decoded(tmp_path / "v.mp4")) <= 10
        assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_nothing_is_left_when_the_disk_has_no_room_for_half_a_second(made, tmp_path):
    with small_disk(tmp_path, 4096):
        with (
            pytest.raises(InputError, match=r"No space left on device.*nothing was left"),
            overlay_video(tmp_path / "v.mp4", 10, (96, 128), made(0).classes) as sink,
        ):
            for index in range(1000):
                sink.write(made(index, size_hw=(96, 128), noise=True))
        assert list(tmp_path.iterdir()) == []


def test_a_fragment_that_is_cut_off_does_not_count(made, tmp_path):
    path = tmp_path / "v.mp4"
    with overlay_video(path, 10, SIZE_HW, made(0).classes) as sink:
        for index in range(10):
            sink.write(made(index))
    whole = whole_fragments_bytes(path)
    os.truncate(path, whole - 1)
    assert 0 < whole_fragments_bytes(path) < whole


def test_other_containers_are_refused(made, tmp_path):
    with pytest.raises(InputError, match=r"as \.mp4"):
        overlay_video(tmp_path / "v.avi", 10, SIZE_HW, made(0).classes)
