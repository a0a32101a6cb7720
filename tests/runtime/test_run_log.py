"""What a machine can read of the log."""

import json
import logging
import threading
import warnings
from datetime import datetime

import numpy as np
import pytest

from edgeseg.data.video import Video
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.loop_session import SessionEvent, SessionEvents
from edgeseg.runtime.run_log import JsonFormatter, event, logging_to_stderr
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource


class Grey(Video):
    name, fps, size_hw = "grey", 10.0, (32, 48)

    def __len__(self) -> int:
        return 3

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((32, 48, 3), 100, np.uint8)

    def labels(self, index: int) -> None:
        return None


def lines_of(caplog) -> list[dict]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_lines_of_text_have_their_time_and_end_with_the_block(capsys):
    log = logging.getLogger("edgeseg.test")
    with logging_to_stderr(as_json=False, level=logging.WARNING):
        log.warning("camera lost")
        log.info("a detail")
    log.warning("later")
    (line,) = capsys.readouterr().err.splitlines()
    stamp, _, message = line.rpartition(" camera ")
    assert message == "lost"
    assert abs((datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f") - datetime.now()).total_seconds()) < 60


def test_an_event_is_told_in_fields_beside_the_message(caplog):
    logging.getLogger("edgeseg.test").warning("it is gone", extra=event("camera_lost", source="cam", frame_index=7))
    (line,) = lines_of(caplog)
    assert line.pop("time")
    assert line == {
        "level": "warning", "logger": "edgeseg.test", "message": "it is gone",
        "event": "camera_lost", "source": "cam", "frame_index": 7,
    }  # fmt: skip


@pytest.mark.parametrize("fields", ["a text", 7, {"message": "theirs", "more": 1}])
def test_what_another_library_has_by_the_name_of_our_fields_does_no_harm(caplog, fields):
    logging.getLogger("another").warning("ours", extra={"fields": fields})
    (line,) = lines_of(caplog)
    assert line["message"] == "ours"
    assert ("more" in line) == isinstance(fields, dict)


@pytest.mark.parametrize(
    ("kind", "name"), [("switched", "session_switched"), ("reset", "session_reset"), ("left out", "session_left_out")]
)
def test_events_of_a_session_are_told_in_fields(caplog, kind, name):
    SessionEvents().add(SessionEvent(1.0, kind, "small", "load"))
    (line,) = lines_of(caplog)
    assert (line["event"], line["configuration"], line["reason"]) == (name, "small", "load")


def test_the_first_labels_are_told_once(bundle, caplog):
    caplog.set_level("INFO", "edgeseg")
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        caplog.clear()
        with Loop(session, VideoSource(Grey(), paced=False)) as loop:
            first, *_ = loop
    (line,) = [line for line in lines_of(caplog) if line.get("event") == "first_labels"]
    assert (line["configuration"], line["frame_index"]) == ("plain_32x48", 0)
    assert (line["age_s"], line["step_ms"]) == (round(first.age_s, 6), round(first.step_ms, 3))


def test_lines_of_json_take_in_other_libraries_warnings_and_ends_of_threads(capsys):
    def fail() -> None:
        raise ValueError("a fault")

    with logging_to_stderr(as_json=True):
        logging.getLogger("another.library").warning("its socket is gone")
        logging.getLogger("another.library").info("a detail of its own")
        warnings.warn("this is old", DeprecationWarning, stacklevel=1)
        failing = threading.Thread(target=fail, name="edgeseg-failing")
        failing.start()
        failing.join()
    library, warning, thread = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (library["logger"], library["message"]) == ("another.library", "its socket is gone")
    assert (warning["logger"], "this is old" in warning["message"]) == ("py.warnings", True)
    assert (thread["event"], thread["thread"]) == ("thread_failed", "edgeseg-failing")
    assert "in fail" in thread["error"]
