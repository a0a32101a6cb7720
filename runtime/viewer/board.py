"""The loop's side of the live view: its newest result, and figures of the last minute, in memory that the server reads.

What each result costs the loop is `Board.offer`: some microseconds for the figures, whoever watches. The frame and its
labels are copied when the server has asked for a picture, which it does when somebody looks, and not too often.

| bytes | content | written |
| --- | --- | --- |
| 0-7 | 1: the server waits for a picture | by both |
| 64- | figures, a record; its payload is the newest point of the plots | at each result |
| 4096- | what runs, as JSON, a record | when the server asks for it |
| `POINTS_AT`- | points of the plots, the oldest overwritten | at each result |
| `PICTURE_AT`- | a frame, its labels, and what goes with them | when the server waits for it |

The picture has one owner at a time and needs no sum: the loop writes it only while the server waits for it.
"""

import bisect
import json
import logging
import mmap
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgeseg.runtime.result import Result
from edgeseg.runtime.shared_record import RecordPlace, RecordWriter

HISTORY_S = 60.0
POINTS_PER_S = 50
"""Faster results share a point of the plots, which then shows the slowest of them."""
POINTS = int(HISTORY_S * POINTS_PER_S)
SPARE_POINTS = 72
"""More than are read: what is written while somebody reads them takes the place of these."""
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_HISTOGRAM = f"{len(BUCKETS_S) + 1}Qd"
FIGURES = struct.Struct(f"<Q4dQ{2 * _HISTOGRAM}")
POINT = struct.Struct("<dQdd")
FACTS_LENGTH = struct.Struct("<I")
PICTURE_HEAD = struct.Struct("<Q5I")
"""Number of the result, bytes of the facts that go with it, height and width of the frame, the same of the labels."""
FIGURES_PLACE = RecordPlace(sequence_at=64, sum_at=72, head=slice(128, 128 + FIGURES.size))
FACTS_PLACE = RecordPlace(sequence_at=4096, sum_at=4104, head=slice(4112, 4112 + FACTS_LENGTH.size))
FACTS_AT, POINTS_AT, PICTURE_AT = 4224, 1 << 16, 1 << 18
PIXELS_AT = PICTURE_AT + (1 << 16)
MEMORY_BYTES = 192 << 20
"""Room for frames of 7680x4320 with labels of that size; the system gives memory for what is used."""
_log = logging.getLogger(__name__)


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

    def __init__(self, counts: tuple[int, ...] = (0,) * (len(BUCKETS_S) + 1), sum_s: float = 0.0) -> None:
        self.counts = list(counts)
        self.sum_s = sum_s

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Board:
    """Written by the loop's process alone, but for the server's wish for a picture.

    Args:
        memory: `MEMORY_BYTES` of zeros.
        facts: what runs, as `edgeseg.runtime.viewer.facts.loop_facts`; None: nothing as yet.
        picture_facts: what goes with a picture beside it.
        tell_server: says that what the server has asked for is there; never waits.
        clock: seconds, as the server's.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        facts: Callable[[], dict[str, Any] | None],
        picture_facts: Callable[[Offered], dict[str, Any]],
        tell_server: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory, self._facts, self._picture_facts = memory, facts, picture_facts
        self._tell_server, self._clock = tell_server, clock
        self._bytes = np.frombuffer(memory, np.uint8)
        self._wanted = memoryview(memory)[:8].cast("Q")
        self._figures, self._facts_record = RecordWriter(FIGURES_PLACE), RecordWriter(FACTS_PLACE)
        self._lock = threading.Lock()
        self._handed = 0
        self._began_s = self._offered_s = self._labels_s = clock()
        self._source_age_s = 0.0
        self._point, self._points = Point(0.0, 0, 0.0, 0.0), 0
        self._step, self._age = Histogram(), Histogram()
        self._has_complained = False
        self.newest: Offered | None = None
        self._write_figures()

    def begin(self) -> None:
        """A loop that comes later is there now: from now on its first result is waited for."""
        self._offered_s = self._labels_s = self._clock()
        self._write_figures()

    def offer(self, result: Result) -> None:
        """Take the loop's newest result; called from one thread at a time."""
        before = self.newest
        number = 1 if before is None else before.number + 1
        self._offered_s = self._clock()
        if before is None or before.result.source_index != result.source_index:
            self._labels_s = self._offered_s
        self._source_age_s = result.published_at - result.source_at
        point = Point(self._offered_s - self._began_s, number, result.step_ms, 1e3 * result.age_s)
        last = self._point
        if self._points and point.at_s - last.at_s < 1 / POINTS_PER_S:
            point = Point(last.at_s, number, max(point.step_ms, last.step_ms), max(point.age_ms, last.age_ms))
        else:
            self._points += 1
        self._point = point
        self._step.add(result.step_ms / 1e3)
        self._age.add(result.age_s)
        self.newest = Offered(number, result)
        self._write_figures()
        if self._wanted[0]:
            self.hand_over()

    def hand_over(self) -> None:
        """Copy the newest result for the server, where it waits for one that is newer than what it has."""
        with self._lock:
            offered = self.newest
            if not self._wanted[0] or offered is None or offered.number <= self._handed or not self._copy(offered):
                return
            self._handed = offered.number
            self._wanted[0] = 0
        self._tell_server()

    def write_facts(self) -> None:
        """Write down what runs, for the server, when something does."""
        facts = self._facts()
        if facts is None:
            return
        text = json.dumps(facts, allow_nan=False).encode()
        if len(text) > POINTS_AT - FACTS_AT:
            raise ValueError(f"what runs takes {len(text)} bytes to tell")
        with self._lock:
            self._facts_record.write(self._memory, FACTS_LENGTH.pack(len(text)), text, FACTS_AT)
        self._tell_server()

    def begin_anew(self) -> None:
        """A new server comes, which has no picture and waits for none; it is told what runs before it can ask."""
        with self._lock:
            self._handed = 0
            self._wanted[0] = 0
        self.write_facts()

    def _write_figures(self) -> None:
        head = FIGURES.pack(
            self._point.number,
            self._offered_s,
            self._labels_s,
            self._source_age_s,
            self._began_s,
            self._points,
            *self._step.counts,
            self._step.sum_s,
            *self._age.counts,
            self._age.sum_s,
        )
        place = point_place(self._points)
        self._figures.write(self._memory, head, POINT.pack(*self._point) if self._points else b"", place.start)

    def _copy(self, offered: Offered) -> bool:
        """Whether the result is in the memory now."""
        frame_rgb, labels = offered.result.frame_rgb, offered.result.labels
        facts = json.dumps(self._picture_facts(offered), separators=(",", ":"), allow_nan=False).encode()
        labels_at = PIXELS_AT + frame_rgb.nbytes
        end = labels_at + labels.nbytes
        if PICTURE_AT + PICTURE_HEAD.size + len(facts) > PIXELS_AT or end > len(self._memory):
            if not self._has_complained:
                _log.warning("a frame of %s is too large for the live view, which does not show it", frame_rgb.shape)
            self._has_complained = True
            return False
        head = PICTURE_HEAD.pack(offered.number, len(facts), *frame_rgb.shape[:2], *labels.shape) + facts
        self._memory[PICTURE_AT : PICTURE_AT + len(head)] = head
        # NumPy lets other threads run while it copies.
        np.copyto(self._bytes[PIXELS_AT:labels_at].reshape(frame_rgb.shape), frame_rgb)
        np.copyto(self._bytes[labels_at:end].reshape(labels.shape), labels)
        return True


def point_place(points: int) -> slice:
    """Where the newest of so many points lies; nowhere when there is none."""
    at = POINTS_AT + POINT.size * ((points - 1) % (POINTS + SPARE_POINTS))
    return slice(at, at + POINT.size) if points else slice(POINTS_AT, POINTS_AT)
