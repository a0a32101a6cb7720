"""The reader's thread: what counts as a stall, and what is told of skipped pictures."""

import threading
import time
from types import SimpleNamespace

import numpy as np

from edgeseg.runtime import camera_reader
from edgeseg.runtime.camera_reader import TOLD_EVERY_S, CameraReader, SkippedPictures
from edgeseg.runtime.capture import Capture
from edgeseg.runtime.damage import PredictedFromDamage


class Damaged(Capture):
    """Gives pictures that are predicted from a damaged one, a tenth of a second apart on `clock_s`, then a good one."""

    fps = 10.0

    def __init__(self, pictures: int, clock_s: list[float]) -> None:
        self._left, self._clock_s = pictures, clock_s

    def read(self):
        time.sleep(0.02)
        self._clock_s[0] += 0.1
        if self._left:
            self._left -= 1
            raise PredictedFromDamage("it is predicted from a damaged one")
        return self._clock_s[0], np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        pass


def test_waiting_for_a_key_frame_is_no_stall(monkeypatch):
    clock_s, skipped = [0.0], []
    monkeypatch.setattr(camera_reader, "time", SimpleNamespace(monotonic=lambda: clock_s[0]))
    reader = CameraReader(lambda: Damaged(30, clock_s), "camera", lambda: skipped.append(1))
    try:
        assert reader.take(threading.Event(), limit_s=0.3) is not None
    finally:
        reader.leave(10.0)
    assert len(skipped) == 30


def test_the_log_tells_of_the_first_skipped_picture_and_of_others_together(caplog):
    now_s = [0.0]
    skipped = SkippedPictures("camera", lambda: now_s[0])
    for _ in range(100):
        skipped.add("damaged")
        now_s[0] += 0.04
    skipped.tell()
    assert caplog.messages == ["camera: a picture is skipped | damaged"]
    now_s[0] = TOLD_EVERY_S
    skipped.tell()
    skipped.tell()
    assert caplog.messages[1:] == ["camera: 99 more pictures were skipped in 10 s | the last: damaged"]
    told = [(record.fields["event"], record.fields["pictures"]) for record in caplog.records]
    assert told == [("camera_corrupt", 1), ("camera_corrupt", 99)]
