import io
import json
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from edgeseg.data.video import Video
from edgeseg.errors import SourceError
from edgeseg.runtime.run import run_loop
from edgeseg.runtime.run_log import JsonFormatter
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import Frame, Source, VideoSource


class Colours(Video):
    """Red, green and blue in turn, 40 frames/s, labelled as the graph `plain` labels them (or wrong by a class)."""

    name, fps, size_hw = "colours", 40.0, (32, 48)

    def __init__(self, frames: int, broken_at: int | None = None, period: int = 1, wrong_by: int = 0) -> None:
        self._frames, self._broken_at, self._period, self._wrong_by = frames, broken_at, period, wrong_by

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        if index == self._broken_at:
            raise SourceError(f"colours broke at frame {index}")
        frame = np.zeros((32, 48, 3), np.uint8)
        frame[..., index // self._period % 3] = 200
        return frame

    def labels(self, index: int) -> np.ndarray:
        if not 0 <= index < self._frames:
            raise AssertionError(index)
        return np.full((32, 48), (index // self._period + self._wrong_by) % 3, np.uint8)


@pytest.fixture
def session(bundle):
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        yield session


def test_streaming_score_is_perfect_when_labels_do_not_change(session, graphs):
    report = run_loop(session, VideoSource(Colours(40, period=99), graphs.classes), classes=graphs.classes)
    # Only the frames before the first publication count as wrong.
    assert report.slamiou is not None
    assert report.slamiou > 0.35
    assert report.slamiou < 1.0
    assert report.slamiou_after_first == 1.0
    assert report.scored_frames >= 40


def test_streaming_score_is_zero_when_every_label_is_another(session, graphs):
    source = VideoSource(Colours(12, period=99, wrong_by=1), graphs.classes)
    report = run_loop(session, source, classes=graphs.classes)
    assert report.slamiou == 0.0
    assert report.slamiou_after_first == 0.0


def test_no_score_without_labels_or_pace(session, graphs):
    assert run_loop(session, VideoSource(Colours(3)), classes=graphs.classes).slamiou is None
    unpaced = VideoSource(Colours(3), graphs.classes, paced=False)
    assert run_loop(session, unpaced, classes=graphs.classes).slamiou is None


def test_frames_limit_the_results(session, graphs):
    report = run_loop(session, VideoSource(Colours(50), paced=False), classes=graphs.classes, frames=7)
    assert report.summary.results >= 7
    assert report.summary.results < 20


def test_seconds_limit_the_run(session, graphs):
    report = run_loop(session, VideoSource(Colours(4000)), classes=graphs.classes, seconds=0.2)
    assert 0.2 <= report.summary.seconds < 2


@pytest.mark.parametrize("frames", [0, 1])
def test_seconds_limit_the_run_when_no_result_comes(session, graphs, frames):
    class Stalling(Source):
        name, fps, size_hw, paced = "stalling", 10.0, (32, 48), True
        given = 0

        def read(self, stop: threading.Event) -> Frame | None:
            if self.given == frames:
                assert stop.wait(10)
                return None
            self.given += 1
            return Frame(0, time.monotonic(), np.zeros((32, 48, 3), np.uint8))

    report = run_loop(session, Stalling(), classes=graphs.classes, seconds=0.2)
    assert report.summary.results == frames
    assert report.summary.seconds < 5


def test_the_time_that_a_source_takes_to_open_is_not_the_loops(session, graphs):
    class SlowToOpen(Colours):
        def frame_rgb(self, index: int) -> np.ndarray:
            time.sleep(0.6 if index == 0 else 0)
            return super().frame_rgb(index)

    report = run_loop(session, VideoSource(SlowToOpen(5)), classes=graphs.classes)
    assert 0.1 <= report.summary.seconds < 0.5


def test_one_line_of_json_per_result(session, graphs):
    lines = io.StringIO()
    run_loop(session, VideoSource(Colours(4), paced=False), classes=graphs.classes, json_lines=lines)
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [row["frame_index"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["pixels"] == {"1": 32 * 48}
    assert rows[0]["configuration"] == "plain_32x48"


def test_the_video_has_the_length_of_the_source_when_frames_were_dropped(session, graphs, tmp_path):
    lines, path = io.StringIO(), tmp_path / "v.mp4"
    run_loop(session, VideoSource(Colours(30)), classes=graphs.classes, save=path, json_lines=lines)
    first, *_, last = [json.loads(line)["frame_index"] for line in lines.getvalue().splitlines()]
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == last - first + 1


def test_the_video_plays_up_to_where_the_source_broke(session, graphs, tmp_path):
    source = VideoSource(Colours(60, broken_at=50), paced=False)
    with pytest.raises(SourceError, match="broke at frame 50"):
        run_loop(session, source, classes=graphs.classes, save=tmp_path / "v.mp4")
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_the_report_of_a_run_that_failed_tells_what_was_done_until_then(session, graphs, tmp_path):
    reports = []
    source = VideoSource(Colours(60, broken_at=9), graphs.classes, paced=False)
    with pytest.raises(SourceError, match="broke at frame 9"):
        run_loop(session, source, classes=graphs.classes, save=tmp_path / "v.mp4", on_failure=reports.append)
    (report,) = reports
    assert (report.summary.results, report.error) == (9, "colours broke at frame 9")
    assert report.video == tmp_path / "v.mp4"
    assert [(sink.written, sink.dropped) for sink in report.sinks] == [(9, 0)]
    assert json.loads(json.dumps(report.as_dict()))["error"] == "colours broke at frame 9"


def test_nothing_is_written_when_the_source_breaks_and_no_h264_is_installed(session, graphs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    source, reports = VideoSource(Colours(30, broken_at=5), paced=False), []
    with pytest.raises(SourceError, match="broke at frame 5"):
        run_loop(session, source, classes=graphs.classes, save=tmp_path / "v.mp4", on_failure=reports.append)
    assert list(tmp_path.iterdir()) == []
    assert reports[0].video is None


def test_the_video_is_mpeg_4_when_no_h264_is_installed(session, graphs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    run_loop(session, VideoSource(Colours(6), paced=False), classes=graphs.classes, save=tmp_path / "v.mp4")
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") == b"FMP4"


def test_the_summary_is_logged_every_so_often(session, graphs, caplog):
    caplog.set_level("INFO", "edgeseg")
    run_loop(session, VideoSource(Colours(20)), classes=graphs.classes, summary_every_s=0.1)
    records = [record for record in caplog.records if record.name == "edgeseg.runtime.run_log"]
    assert len(records) >= 2
    assert records[-1].fields["summary"]["configuration"] == "plain_32x48"
    assert json.loads(JsonFormatter().format(records[-1]))["lately_fps"] > 0
