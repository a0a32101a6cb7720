"""What the loop hands over to the live view: its newest result, and figures of the last minute.

The loop's side is `offer`, a few microseconds, whoever watches: no encoding, no copy, no waiting for a viewer.
"""

import asyncio
import bisect
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edgeseg.runtime.result import Result

HISTORY_S = 60.0
POINTS_PER_S = 50
"""Faster results share a point of the plots, which then shows the slowest of them."""
FPS_WINDOW_S = 5.0
Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True)
class Offered:
    """A result and its place in the order, from 1 on."""

    number: int
    result: Result


class Point(NamedTuple):
    """A point of the plots."""

    at_s: float
    """Since the view began."""
    number: int
    """Results until then."""
    step_ms: float
    age_ms: float


class Histogram:
    """Counts of seconds in `BUCKETS_S`, beyond them in one more; `sum_s` of all."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Hub:
    """The newest result only; whoever takes none misses nothing else.

    Args:
        clock: seconds; when results came, for their rate and for how long none has come.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s = self._offered_s = clock()
        self._points: deque[Point] = deque(maxlen=int(HISTORY_S * POINTS_PER_S))
        self.newest: Offered | None = None
        self.step, self.age = Histogram(), Histogram()
        self._waiting: list[Waiting] = []

    def offer(self, result: Result) -> None:
        """Take the loop's newest result."""
        number = 1 if self.newest is None else self.newest.number + 1
        age_ms = 1e3 * result.age_s
        with self._lock:
            self._offered_s = self._clock()
            point = Point(self._offered_s - self._began_s, number, result.step_ms, age_ms)
            if self._points and point.at_s - self._points[-1].at_s < 1 / POINTS_PER_S:
                last = self._points.pop()
                point = Point(last.at_s, number, max(point.step_ms, last.step_ms), max(point.age_ms, last.age_ms))
            self._points.append(point)
            self.step.add(result.step_ms / 1e3)
            self.age.add(result.age_s)
        self.newest = Offered(number, result)
        # Whoever waits says so and then looks for a newer result: none is missed.
        while self._waiting:
            loop, came = self._waiting.pop()
            # The server may have ended meanwhile, and its event loop with it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, came)

    def next_result(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
        """Done when the next result has come; called on the event loop."""
        came = loop.create_future()
        self._waiting.append((loop, came))
        return came

    @property
    def now_s(self) -> float:
        """Seconds since the view began, as in `Point.at_s`."""
        return self._clock() - self._began_s

    @property
    def silent_s(self) -> float:
        """Seconds since the last result, or since the view began."""
        return self._clock() - self._offered_s

    def points(self, last_s: float = HISTORY_S) -> list[Point]:
        """Those of the last seconds, oldest first."""
        since_s = self.now_s - last_s
        with self._lock:
            newest_first = list(reversed(self._points))
        kept = next((index for index, point in enumerate(newest_first) if point.at_s < since_s), len(newest_first))
        return newest_first[:kept][::-1]

    def fps(self) -> float:
        """Results per second over the last seconds."""
        points = self.points(FPS_WINDOW_S)
        if len(points) < 2:
            return 0.0
        # Up to now and not to the last point: a loop that stands has a rate that falls.
        return (points[-1].number - points[0].number) / max(self.now_s - points[0].at_s, 1e-6)


def _settle(came: "asyncio.Future[None]") -> None:
    if not came.done():
        came.set_result(None)
