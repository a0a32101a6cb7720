"""Schedules of the camera loop: when the worker that is free starts the next step, and with which frame.

A schedule is named as on the command line; `start_rule` makes the object that a loop's worker, or the prediction of its
sLAmIoU (`edgeseg.metrics.streaming`), asks about each frame.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import ROUNDING
from edgeseg.metrics.streaming import StartRule

FORMS = "latest-frame, shrinking-tail, every-n-th:N, fixed-rate:HZ"
"""What a schedule's name looks like, for messages and help."""
FASTER = 1.1
"""A rate that is told or measured may differ by so much from the camera's."""
_MEMORY = 16
"""Steps whose mean shrinking-tail takes for the next one's latency: long enough against jitter, short enough for heat.
"""


@dataclass(frozen=True)
class Schedule:
    """The name of a way to schedule steps.

    `latest-frame` starts at once, with the newest frame.
    `shrinking-tail` waits for the next frame when starting now would give a result with a longer tail, that is one that
    lies about for longer until the next frame reads it (Li et al., Towards Streaming Perception, ECCV 2020).
    `every-n-th:N` takes one frame of each N: the first one, or the newest when the worker is late.
    `fixed-rate:HZ` does the same in time: the first frame that was captured in each 1 / HZ seconds.
    """

    kind: str = "latest-frame"
    value: float | None = None
    """N of `every-n-th`, results per second of `fixed-rate`."""

    def __post_init__(self) -> None:
        if self.kind not in _RULES:
            raise InputError(f"unknown schedule {self.kind!r} | known: {FORMS}")
        is_whole = self.value is not None and float(self.value).is_integer()
        if self.kind in _WITHOUT_VALUE and self.value is not None:
            raise InputError(f"schedule {self.kind} has no number | got {self.value:g}: leave it out")
        got = "no number" if self.value is None else f"{self.value:g}"
        if self.kind == "every-n-th" and not (is_whole and 1 <= float(self.value or 0) <= 1000):
            raise InputError(f"every-n-th takes a whole number from 1 to 1000 | got {got}: write every-n-th:3")
        if self.kind == "fixed-rate" and not 0 < float(self.value or 0) < math.inf:
            raise InputError(f"fixed-rate takes results per second | got {got}: write fixed-rate:5")

    @classmethod
    def parse(cls, name: str) -> "Schedule":
        """The schedule of that name.

        Raises:
            InputError: no such schedule; the message lists the known ones.
        """
        kind, colon, number = name.partition(":")
        if not colon:
            return cls(kind)
        try:
            return cls(kind, float(number))
        except ValueError as error:
            raise InputError(f"schedule {name!r} has no number after the colon | known: {FORMS}") from error

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        return self.kind if self.value is None else f"{self.kind}:{self.value:g}"

    def is_faster_than(self, fps: float) -> bool:
        """Whether it asks for clearly more results than a camera of `fps` gives frames."""
        return self.kind == "fixed-rate" and (self.value or 0.0) > FASTER * fps

    def start_rule(self, fps: float) -> StartRule:
        """A fresh rule for one loop over a camera of `fps`."""
        return _RULES[self.kind](fps, self.value)


class _LatestFrame:
    """At once."""

    def takes(self, index: int, captured_at_s: float, free_at_s: float) -> bool:
        return True

    def finished(self, latency_s: float) -> None:
        pass


class _ShrinkingTail:
    """At once unless frac((s + l) / d) < frac(s / d), with s counted from the newest frame's capture."""

    def __init__(self, frame_period_s: float) -> None:
        self._period_s = frame_period_s
        self._latencies_s: deque[float] = deque(maxlen=_MEMORY)

    def takes(self, index: int, captured_at_s: float, free_at_s: float) -> bool:
        now = (free_at_s - captured_at_s) / self._period_s
        # A frame that came when the network was free already has no tail: the next one would only be later.
        if not self._latencies_s or now <= ROUNDING:
            return True
        mean_s = sum(self._latencies_s) / len(self._latencies_s)
        return _fraction(now + mean_s / self._period_s) >= _fraction(now) - ROUNDING

    def finished(self, latency_s: float) -> None:
        self._latencies_s.append(latency_s)


class _OneOfEach:
    """One frame of each stretch of the video: the first, or the newest when the network was busy for longer."""

    def __init__(self, stretch_of: Callable[[int, float], int]) -> None:
        self._stretch_of = stretch_of
        self._last: int | None = None

    def takes(self, index: int, captured_at_s: float, free_at_s: float) -> bool:
        stretch = self._stretch_of(index, captured_at_s)
        if self._last is not None and stretch <= self._last:
            return False
        self._last = stretch
        return True

    def finished(self, latency_s: float) -> None:
        pass


class _FixedRate(_OneOfEach):
    def __init__(self, rate_hz: float, frame_period_s: float) -> None:
        self._first_s: float | None = None

        def stretch_of(index: int, captured_at_s: float) -> int:
            if self._first_s is None:
                self._first_s = captured_at_s
            # Half a frame earlier: a frame that is due at the boundary may come a little before it.
            return math.floor((captured_at_s - self._first_s + 0.5 * frame_period_s) * rate_hz + ROUNDING)

        super().__init__(stretch_of)


def _fraction(periods: float) -> float:
    """Part of a frame period; what is a whole number but for rounding has none."""
    fraction = periods - math.floor(periods)
    return 0.0 if fraction > 1.0 - ROUNDING * max(1.0, abs(periods)) else fraction


def _every_nth(count: int) -> StartRule:
    return _OneOfEach(lambda index, captured_at_s: index // count)


_RULES: dict[str, Callable[[float, float | None], StartRule]] = {
    "latest-frame": lambda fps, value: _LatestFrame(),
    "shrinking-tail": lambda fps, value: _ShrinkingTail(1.0 / fps),
    "every-n-th": lambda fps, value: _every_nth(int(value or 1)),
    "fixed-rate": lambda fps, value: _FixedRate(value or fps, 1.0 / fps),
}
_WITHOUT_VALUE = ("latest-frame", "shrinking-tail")

LATEST_FRAME, SHRINKING_TAIL = Schedule("latest-frame"), Schedule("shrinking-tail")
CHOICES = (LATEST_FRAME, SHRINKING_TAIL)
"""Schedules that the pick chooses from; the others are a user's wish to compute less, or regularly."""
