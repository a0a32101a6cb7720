"""The time between two frames of a camera, as its capture times tell it."""

import math
import statistics
from collections import deque

DIFFERENCES = 9
"""Differences that the median is taken of: up to four frames that were lost before they had an index, or jumps of the
clock, do not move it, and a change of rate is followed after five frames."""
DIFFERENCES_MIN = 3
"""With fewer of them the stated period stands."""


class FramePeriod:
    """Median time per frame over the last frames.

    A camera may give fewer frames than it says, as most do in the dark: told 30 frames/s, 15 come. Where indices skip,
    a difference is shared by the frames between. A clock that stands, goes back or is not finite says nothing.

    Args:
        stated_s: the period that the source tells, until there are enough frames.
    """

    def __init__(self, stated_s: float) -> None:
        self._stated_s = stated_s
        self._newest: tuple[int, float] | None = None
        self._differences_s: deque[float] = deque(maxlen=DIFFERENCES)

    def add(self, index: int, captured_at_s: float) -> None:
        """Take the index and the capture time of the next frame; indices ascend."""
        if self._newest is not None:
            before, before_s = self._newest
            difference_s = (captured_at_s - before_s) / (index - before)
            if 0 < difference_s < math.inf:
                self._differences_s.append(difference_s)
        self._newest = index, captured_at_s

    @property
    def seconds(self) -> float:
        """Seconds from one frame to the next."""
        if len(self._differences_s) < DIFFERENCES_MIN:
            return self._stated_s
        return statistics.median(self._differences_s)
