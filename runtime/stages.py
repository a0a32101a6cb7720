"""The first two stages of the camera loop: one takes frames from the source, one steps the session."""

import threading
import time
from collections.abc import Callable

import numpy as np

from edgeseg.runtime.continuity import Stretches
from edgeseg.runtime.loop_session import LoopSession, SessionEvent
from edgeseg.runtime.sample_window import SampleWindow
from edgeseg.runtime.schedule import LATEST_FRAME, SHRINKING_TAIL, Schedule
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame, Source

FIRST_STEP_S = 5.0
"""How long a step may take before one has told: the first one of a session may compile."""
STEPS_OF_A_HANG = 2.0
"""One that takes so many times the longest so far hangs."""


class CaptureStage:
    """Reads the source and hands its frames on.

    Args:
        source: read on the stage's thread.
        stretches: numbers the frames' stretches.
        hand_over: takes a frame; False when stopped.
        stop: ends it.
    """

    def __init__(
        self, source: Source, stretches: Stretches, hand_over: Callable[[Frame], bool], stop: threading.Event
    ) -> None:
        self._source, self._stretches, self._hand_over, self._stop = source, stretches, hand_over, stop
        self.captured = self.missed = 0
        """Frames so far, and those that the source skipped between them."""
        self.first_captured_at_s: float | None = None

    def run(self) -> None:
        """Read until the source ends, or stopped."""
        expected = 0
        while (frame := self._source.read(self._stop)) is not None:
            if self.first_captured_at_s is None:
                self.first_captured_at_s = frame.captured_at_s
            self.captured += 1
            self.missed += frame.index - expected
            expected = frame.index + 1
            if not self._hand_over(self._stretches.numbered(frame)):
                return


class StepStage:
    """Steps the session with the newest frame whenever the schedule says so.

    Args:
        session: used on the stage's thread.
        frames: where the newest frame is.
        schedule: when a step starts, and with which frame. Frames that wait to be taken have no tail: with them
            `shrinking-tail` is `latest-frame`.
        source: tells the frames' rate, and whether they wait.
        stretches: tells where what the session remembers is void.
        note: called with each frame before it leaves `frames`.
        hand_over: takes a frame, its labels and the milliseconds of the step; False when stopped.
        clock: seconds; of the frames' capture times.
    """

    def __init__(
        self,
        session: LoopSession,
        frames: LatestSlot[Frame],
        *,
        schedule: Schedule,
        source: Source,
        stretches: Stretches,
        note: Callable[[Frame], None] | None,
        hand_over: Callable[[Frame, np.ndarray, float], bool],
        clock: Callable[[], float],
    ) -> None:
        self._session, self._frames, self._stretches = session, frames, stretches
        self._schedule = schedule if source.paced or schedule != SHRINKING_TAIL else LATEST_FRAME
        self._fps, self._note, self._hand_over, self._clock = source.fps, note, hand_over, clock
        self._rule, self._stretch = self._schedule.start_rule(self._fps), 0
        self._free_at_s = 0.0
        self.step_ms = SampleWindow()
        """What steps took."""
        self._longest_step_s = 0.0
        self.is_busy = False
        """Whether a step is under way, or its labels are handed over."""

    @property
    def patience_s(self) -> float:
        """How long to wait for the step that is under way."""
        return STEPS_OF_A_HANG * self._longest_step_s if self._longest_step_s else FIRST_STEP_S

    def run(self) -> None:
        """Step until no more frames come, or stopped."""
        self._free_at_s = self._clock()
        while (frame := self._frames.take(self._note, accepts=self._accepts)) is not None:
            self.is_busy = True
            begin = time.perf_counter()
            # Cameras and streams may change it in the middle.
            self._session.take_frames_of(frame.rgb.shape[:2], changed=True)
            self._forget_if_broken(frame)
            labels = self._session.step(frame.rgb)
            step_s = time.perf_counter() - begin
            self.step_ms.add(1e3 * step_s)
            self._longest_step_s = max(self._longest_step_s, step_s)
            self._rule.finished(step_s)
            if not self._hand_over(frame, labels, 1e3 * step_s):
                return
            self.is_busy = False
            self._free_at_s = self._clock()

    def _accepts(self, frame: Frame) -> bool:
        if frame.stretch != self._stretch:
            # A schedule that goes by capture times would wait for ever where they went back.
            self._rule, self._stretch = self._schedule.start_rule(self._fps), frame.stretch
        return self._rule.takes(frame.index, frame.captured_at_s, self._free_at_s)

    def _forget_if_broken(self, frame: Frame) -> None:
        """A network that remembers begins anew with a frame that does not go on from the last one stepped."""
        reason = self._stretches.broken_before(frame)
        if reason is not None and self._session.configuration.links:
            self._session.reset()
            name = self._session.configuration.name
            self._session.events.add(SessionEvent(time.monotonic(), "reset", name, f"{reason}, at frame {frame.index}"))
