import os
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import overlay_video
from edgeseg.runtime.sinks.base import time_of
from edgeseg.runtime.sinks.h264 import ends_whole, whole_fragments_bytes
from support.small_disk import small_disk

av = pytest.importorskip("av")
SIZE_HW = (32, 48)


def decoded(path):
    """Mean RGB of each picture, by a decoder that refuses whatever is damaged."""
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return [picture.to_ndarray(format="rgb24").mean((0, 1)) for picture in container.decode(video=0)]


def times_of(path):
    """When each picture is shown, in seconds."""
    with av.open(str(path)) as container:
        return [float(picture.time) for picture in container.decode(video=0)]


def captured(made, *at_s):
    """Results of frames 0, 1, 2, ... that were captured then, by a camera of 10 frames/s."""
    return [replace(made(index), captured_at=10.0 + at) for index, at in enumerate(at_s)]


def test_each_result_is_shown_until_the_next_ones_frame(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for index in (0, 4, 5):
            sink.write(made(index))
    shown = [int(colour.argmax()) for colour in decoded(tmp_path / "v.mp4")]
    assert shown == [0, 0, 0, 0, 1, 2]


def test_the_times_are_those_of_the_source(made, tmp_path):
    by_number = time_of(paced=False, fps=29.97)
    with overlay_video(tmp_path / "v.mp4", 29.97, SIZE_HW, made(0).classes, time_of=by_number) as sink:
        for index in range(31):
            sink.write(made(index))
    times = times_of(tmp_path / "v.mp4")
    assert times == pytest.approx([index / 29.97 for index in range(31)], abs=1e-3)


def test_a_long_gap_is_a_gap_and_not_thousands_of_pictures(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for index in (0, 36_000, 36_001):
            sink.write(made(index))
    times = times_of(tmp_path / "v.mp4")
    assert len(times) == 22
    assert times[-2:] == [3600.0, 3600.1]


def test_a_copy_of_the_growing_file_plays_but_for_the_last_half_second(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for index in range(43):
            sink.write(made(index))
        (tmp_path / "copy.mp4").write_bytes((tmp_path / "v.mp4").read_bytes())
    assert len(decoded(tmp_path / "copy.mp4")) >= 36
    assert len(decoded(tmp_path / "v.mp4")) == 43


def test_the_clock_goes_on_while_the_camera_is_away(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for result in captured(made, 0.0, 0.1, 61.5, 61.6):
            sink.write(result)
    times = times_of(tmp_path / "v.mp4")
    assert times[0:2] == pytest.approx([0.0, 0.1])
    assert times[-2:] == pytest.approx([61.5, 61.6])
    # The last picture before is shown for two seconds, and stands.
    assert times[-3] == pytest.approx(2.0)


def test_pictures_that_come_in_bursts_are_shown_evenly(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for result in captured(made, 0.0, 0.19, 0.2, 0.39, 0.4, 0.59, 0.6):
            sink.write(result)
    assert [int(colour.argmax()) for colour in decoded(tmp_path / "v.mp4")] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("period_s", [0.2, 0.05])
def test_the_clock_is_the_captures_where_the_camera_has_another_rate_than_it_told(made, tmp_path, period_s):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for result in captured(made, *(index * period_s for index in range(41))):
            sink.write(result)
    assert times_of(tmp_path / "v.mp4")[-1] == pytest.approx(40 * period_s, abs=0.15)


def test_a_video_of_an_earlier_run_is_refused_and_stays(made, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"old")
    sink = overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes)
    for refusing in (sink.check, sink.open):
        with pytest.raises(InputError, match=r"v\.mp4 exists \| --overwrite replaces it"):
            refusing()
    assert (tmp_path / "v.mp4").read_bytes() == b"old"


def test_a_video_to_be_replaced_stays_until_the_first_half_second_is_written(made, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"old")
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes, overwrite=True) as sink:
        sink.write(made(0))
        sink.write(made(1))
        assert (tmp_path / "v.mp4").read_bytes() == b"old"
    assert len(decoded(tmp_path / "v.mp4")) == 2


def test_a_video_takes_another_name_when_another_process_was_faster(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        sink.write(made(0))
        (tmp_path / "v.mp4").write_bytes(b"its")
        sink.write(made(1))
    assert (tmp_path / "v.mp4").read_bytes() == b"its"
    assert len(decoded(tmp_path / "v-2.mp4")) == 2


def test_frames_are_shown_at_the_size_of_the_video(made, tmp_path):
    with overlay_video(tmp_path / "v.mp4", 10, (16, 24), made(0).classes) as sink:
        sink.write(made(1, size_hw=(64, 96)))
    (colour,) = decoded(tmp_path / "v.mp4")
    assert colour == pytest.approx([0, 127, 0], abs=6)


@pytest.mark.parametrize("size_hw", [(32, 48), (33, 49)])
def test_pixels_come_back_where_they_were(made, tmp_path, size_hw):
    result = made(0, size_hw=size_hw)
    result.labels[:, 24:] = 2
    with overlay_video(tmp_path / "v.mp4", 10, size_hw, result.classes) as sink:
        sink.write(result)
    with av.open(str(tmp_path / "v.mp4")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
        told = container.streams.video[0].codec_context
        assert (told.colorspace, told.color_range) == (6, 1)
    expected = result.overlay()[:32, :48].astype(int)
    # The colours of two pixels are one beside the border.
    assert np.abs(shown - expected)[:, [*range(20), *range(28, 48)]].max() <= 12


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
    assert ends_whole(path)
    os.truncate(path, whole - 1)
    assert not ends_whole(path)
    assert 0 < whole_fragments_bytes(path) < whole


def test_other_containers_are_refused(made, tmp_path):
    with pytest.raises(InputError, match=r"as \.mp4"):
        overlay_video(tmp_path / "v.avi", 10, SIZE_HW, made(0).classes)


def test_mpeg_4_warns_that_it_is_lost_with_its_process(made, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        sink.write(made(0))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "when the run ends well" in record.message


def test_mpeg_4_shows_the_last_picture_for_ten_seconds_while_the_camera_is_away(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes) as sink:
        for result in captured(made, 0.0, 3600.0):
            sink.write(result)
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 101


def test_an_earlier_mpeg_4_video_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "v.mp4").write_bytes(b"old")
    with pytest.raises(InputError, match="exists"):
        overlay_video(tmp_path / "v.mp4", 10, SIZE_HW, made(0).classes).open()
