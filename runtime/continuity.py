"""Where a video breaks off and goes on elsewhere: what is remembered of the frames before is void there.

A camera that was lost for seconds, a clip that begins again, or pictures of another size: the state of a network and
the motion between two frames belong to the scene as it was.
"""

import math
from dataclasses import replace

from edgeseg.errors import InputError
from edgeseg.runtime.frame_period import FramePeriod
from edgeseg.runtime.source import Frame

GAP_S = 1.0
"""A scene is another one after so long: five to thirty frames, more than any delay that networks are scored at."""
PERIODS_OF_A_GAP = 3.0
"""What comes more slowly is given so many of its periods."""


class Stretches:
    """Numbers the stretches of a source's frames: within one, each frame goes on from the one before.

    A stretch ends at a gap between two capture times, where they go back by more than three periods, and at another
    size.

    Args:
        fps: of the source.
        paced: whether capture times are those of a camera; those of frames that wait to be asked for tell no gap.
        gap_s: seconds without a frame that end a stretch, or three of the source's periods, if longer; inf: none does.

    Raises:
        InputError: the gap is not positive.
    """

    def __init__(self, fps: float, *, paced: bool, gap_s: float = GAP_S) -> None:
        if not gap_s > 0:
            raise InputError(f"a gap between frames is positive, in seconds | got {gap_s}")
        self._least_s = PERIODS_OF_A_GAP / fps
        self._gap_s = max(gap_s, self._least_s) if paced else math.inf
        self._before: Frame | None = None
        self._gaps = FramePeriod(math.inf)
        self._steps = 0
        self._stepped: Frame | None = None

    def numbered(self, frame: Frame) -> Frame:
        """The next captured frame, with the number of its stretch."""
        before, number = self._before, 0
        if before is not None:
            passed_s = frame.captured_at_s - before.captured_at_s
            ends = passed_s > self._gap_s or passed_s < -self._least_s or frame.rgb.shape != before.rgb.shape
            number = before.stretch + ends
        self._before = replace(frame, stretch=number)
        return self._before

    def broken_before(self, frame: Frame) -> str | None:
        """Why the state of a network is void that steps `frame` next; None where it is not, or there is none yet.

        To be asked about each frame that is stepped. A step that hung leaves a gap too, which is one when it is also
        longer than three of the steps' usual distances: a slow network is always that far behind.
        """
        before, self._stepped = self._stepped, frame
        usual_s, self._steps = self._gaps.seconds, self._steps + 1
        self._gaps.add(self._steps, frame.captured_at_s)
        if before is None:
            return None
        passed_s = frame.captured_at_s - before.captured_at_s
        if frame.stretch == before.stretch and passed_s <= max(self._gap_s, PERIODS_OF_A_GAP * usual_s):
            return None
        if frame.rgb.shape != before.rgb.shape:
            height, width = frame.rgb.shape[:2]
            return f"pictures of {height}x{width} instead of {before.rgb.shape[0]}x{before.rgb.shape[1]}"
        if passed_s < 0:
            return f"capture times went back by {-passed_s:.3g} s"
        return f"{passed_s:.3g} s since the frame before"
