"""The thread that reads a camera. A call that hangs in a driver hangs there, and nobody waits for it."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from edgeseg.runtime.capture import Capture, CaptureLost, CorruptPicture
from edgeseg.runtime.damage import PredictedFromDamage
from edgeseg.runtime.run_log import event
from edgeseg.runtime.slot import POLL_S

RATE_PICTURES, RATE_S = 8, 0.5
"""A frame rate is measured over so many pictures and so long at least,"""
SLOW_RATE_PICTURES, SLOW_RATE_S = 2, 2.0
"""or these, of a slow camera."""
SETTLED_PICTURES, SETTLED_S = 8, 5.0
"""After so many and so long the rate is that of the camera, not of its beginning."""
BEHIND_S = 1.0
"""Pictures that had waited tell no rate, but for those of a camera that is faster than it can be read."""
TOLD_EVERY_S = 10.0
"""Skipped pictures are told of so often at most."""

_log = logging.getLogger(__name__)


class Stalled(CaptureLost):
    """The capture is open and gives nothing."""


class CameraReader:
    """Opens a capture, reads it, and holds its newest picture, until it breaks or is left.

    Args:
        open_capture: called on the reader's thread; may hang as reading may.
        name: of the camera, for the log.
        note_corrupt: called for each corrupt picture, until the reader is left.
    """

    def __init__(self, open_capture: Callable[[], Capture], name: str, note_corrupt: Callable[[], None]) -> None:
        self._open, self._name, self._note_corrupt = open_capture, name, note_corrupt
        self._changed = threading.Condition()
        self._newest: tuple[int, float, np.ndarray] | None = None
        self._failure: Exception | None = None
        self._left = self._asked = self._is_held = False
        self._came_at_s = self._opened_at_s = time.monotonic()
        self._corrupt_in_a_row = 0
        self._skipped = SkippedPictures(name)
        self._came = 0
        self._rate_from: tuple[int, float] | None = None
        self._rate_to = (0, 0.0)
        self.fps: float | None = None
        """As the capture tells it, once it is open."""
        self.pictures = 0
        """Whole pictures so far, taken or not."""
        # A daemon: a process must be able to end while a driver hangs.
        self._thread = threading.Thread(target=self._run, name="edgeseg-camera", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread still runs, or hangs."""
        return self._thread.is_alive()

    def take(self, stop: threading.Event, limit_s: float) -> tuple[int, float, np.ndarray] | None:
        """The newest picture that was not taken: its number, when it came, and the picture; None soon after `stop`.

        Raises:
            CaptureLost: it broke; `Stalled`: no whole picture has come for `limit_s` seconds.
            EdgesegError: it cannot be opened, or is of no use.
        """
        with self._changed:
            self._release()
            self._wait(stop, limit_s)
            newest, self._newest = self._newest, None
            return newest

    def wait_for_size_hw(self, stop: threading.Event, limit_s: float) -> tuple[int, int] | None:
        """Height and width of the picture that `take` would give; it is left there. Waits and raises as `take` does."""
        with self._changed:
            self._wait(stop, limit_s)
            return None if self._newest is None else self._newest[2].shape[:2]

    def measured_fps(self, limit_s: float) -> float | None:
        """The rate at which pictures come, waiting for some; None where too few have come within `limit_s` seconds."""
        end_s = time.monotonic() + limit_s
        with self._changed:
            self._release()
            while (rate := self._fps_so_far()) is None and self._failure is None:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(left_s, POLL_S))
            return rate

    def settled_fps(self) -> float | None:
        """The rate at which pictures come, corrupt ones included; None until they have come for some seconds."""
        with self._changed:
            pictures, passed_s = self._since_rate_began()
            return pictures / passed_s if pictures >= SETTLED_PICTURES and passed_s >= SETTLED_S else None

    def leave(self, join_s: float = 0.0) -> None:
        """Nobody takes pictures any more: the thread closes the capture when its call comes back."""
        with self._changed:
            self._left = True
        if join_s:
            self._thread.join(join_s)

    def _release(self) -> None:
        """A recording that waits for somebody who looks begins now."""
        if self._asked:
            return
        self._asked = True
        if self._is_held and self._newest is not None:
            number, _, rgb = self._newest
            self._came_at_s = time.monotonic()
            self._newest = (number, self._came_at_s, rgb)
        self._is_held = False
        self._changed.notify_all()

    def _wait(self, stop: threading.Event, limit_s: float) -> None:
        while self._newest is None and not stop.is_set():
            if self._failure is not None:
                raise self._failure
            left_s = self._came_at_s + limit_s - time.monotonic()
            if left_s <= 0:
                kind = f", only {self._corrupt_in_a_row} corrupt pictures" if self._corrupt_in_a_row else ""
                raise Stalled(f"nothing came for {limit_s:.1f} s{kind}")
            self._changed.wait(min(left_s, POLL_S))

    def _fps_so_far(self) -> float | None:
        pictures, passed_s = self._since_rate_began()
        is_enough = pictures >= RATE_PICTURES and passed_s >= RATE_S
        is_slow = pictures >= SLOW_RATE_PICTURES and passed_s >= SLOW_RATE_S
        return pictures / passed_s if is_enough or is_slow else None

    def _since_rate_began(self) -> tuple[int, float]:
        """How many pictures have come since the first one that tells a rate, and in how many seconds."""
        if self._rate_from is None:
            return 0, 0.0
        return self._rate_to[0] - self._rate_from[0], self._rate_to[1] - self._rate_from[1]

    def _run(self) -> None:
        try:
            capture = self._open()
            try:
                self.fps, self._opened_at_s = capture.fps, time.monotonic()
                while not self._left:
                    self._read(capture)
            finally:
                capture.close()
        except Exception as error:  # whatever it is, it is raised again where the pictures are taken
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _read(self, capture: Capture) -> None:
        try:
            came_at_s, rgb = capture.read()
        except CorruptPicture as error:
            with self._changed:
                if self._left:
                    return
                self._note_corrupt()
                self._came += 1
                self._corrupt_in_a_row += 1
                if isinstance(error, PredictedFromDamage):
                    # The camera is well, and the next key frame near; how long that may take is limited there.
                    self._came_at_s = time.monotonic()
            self._skipped.add(str(error))
            return
        self._skipped.tell()
        with self._changed:
            if self._left:
                return
            self._corrupt_in_a_row = 0
            self._newest = (self.pictures, came_at_s, rgb)
            self._rate_to = self._came, came_at_s
            if self._rate_from is None and (not capture.had_waited or time.monotonic() - self._opened_at_s > BEHIND_S):
                self._rate_from = self._rate_to
            self._came += 1
            self.pictures += 1
            self._came_at_s = time.monotonic()
            self._is_held = capture.is_recording and not self._asked
            self._changed.notify_all()
            while self._is_held and not self._left:
                self._changed.wait(POLL_S)


class SkippedPictures:
    """Tells the log of skipped pictures: of the first one at once, of those after it together, now and then.

    Args:
        name: of the camera.
        clock: seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._told_at_s: float | None = None
        self._untold, self._reason = 0, ""

    def add(self, reason: str) -> None:
        """A picture was skipped."""
        self._untold, self._reason = self._untold + 1, reason
        self.tell()

    def tell(self) -> None:
        """Tell of those that were not told of, if it is time."""
        now_s = self._clock()
        if not self._untold or (self._told_at_s is not None and now_s - self._told_at_s < TOLD_EVERY_S):
            return
        told = event("camera_corrupt", source=self._name, pictures=self._untold, reason=self._reason)
        if self._told_at_s is None:
            _log.warning("%s: a picture is skipped | %s", self._name, self._reason, extra=told)
        else:
            _log.warning(
                "%s: %d more pictures were skipped in %.0f s | the last: %s",
                self._name, self._untold, now_s - self._told_at_s, self._reason, extra=told,
            )  # fmt: skip
        self._told_at_s, self._untold = now_s, 0
