"""The server's side of the memory in which the loop tells its newest result and its figures: `Board`."""

import json
import mmap
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.runtime.shared_record import RecordReader, TornRecord
from edgeseg.runtime.viewer.board import (
    BUCKETS_S,
    FACTS_AT,
    FACTS_LENGTH,
    FACTS_PLACE,
    FIGURES,
    FIGURES_PLACE,
    HISTORY_S,
    PICTURE_AT,
    PICTURE_HEAD,
    PIXELS_AT,
    POINT,
    POINTS,
    POINTS_AT,
    SPARE_POINTS,
    Histogram,
    Point,
    point_place,
)

FPS_WINDOW_S = 5.0


@dataclass(frozen=True)
class Figures:
    """What is known of all results together."""

    number: int
    """Of results; 0 before the first."""
    offered_s: float
    """When the newest came, or the view began."""
    labels_s: float
    """When the first one with the newest's labels came, or the view began: labels that are published again, moved or
    not, are no new ones."""
    source_age_s: float
    """Age of the frame that the newest one's labels were computed from, when they were published."""
    began_s: float
    points: int
    newest_point: Point | None
    step: Histogram
    age: Histogram


@dataclass(frozen=True)
class Shown:
    """A result as the server has it: its own copy."""

    number: int
    """Place in the order, from 1 on."""
    facts: dict[str, Any]
    """As `edgeseg.runtime.viewer.facts.picture_facts`."""
    frame_rgb: np.ndarray
    """uint8 `(H, W, 3)` RGB."""
    labels: np.ndarray
    """uint8 `(h, w)`."""


class BoardReader:
    """Reads what a `Board` writes, without holding it up.

    Args:
        clock: seconds, as the loop's.
    """

    def __init__(self, memory: mmap.mmap, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory, self._clock = memory, clock
        self._wanted = memoryview(memory)[:8].cast("Q")
        self._record = RecordReader(memory, FIGURES_PLACE, lambda head: point_place(_points_of(head)))
        self._facts_record = RecordReader(memory, FACTS_PLACE, _facts_place)
        self._known = Figures(0, clock(), clock(), 0.0, clock(), 0, None, Histogram(), Histogram())

    def figures(self) -> Figures:
        """The newest ones; those before, when the loop was stopped in the middle of writing them."""
        with suppress(TornRecord):
            record = self._record.read()
            if record is not None:
                self._known = _figures(record.head, record.payload)
        return self._known

    @property
    def facts_number(self) -> int:
        """How often the loop has told what runs."""
        return self._facts_record.number

    def facts(self) -> dict[str, Any]:
        """What runs, as the loop has told it last.

        Raises:
            TornRecord: it was stopped in the middle, or has not told it yet.
        """
        record = self._facts_record.read()
        if record is None:
            raise TornRecord
        told: dict[str, Any] = json.loads(record.payload)
        return told

    def want_picture(self) -> None:
        """Ask the loop for its newest result, when it has one that is newer than the last it gave."""
        self._wanted[0] = 1

    @property
    def is_picture_there(self) -> bool:
        """Whether the loop has given what was asked for."""
        return not self._wanted[0]

    def picture(self) -> Shown:
        """A copy of what the loop has given last; only between that and the next `want_picture`."""
        number, facts_bytes, height, width, *labels_hw = PICTURE_HEAD.unpack_from(self._memory, PICTURE_AT)
        facts_at = PICTURE_AT + PICTURE_HEAD.size
        labels_at = PIXELS_AT + 3 * height * width
        return Shown(
            number,
            json.loads(self._memory[facts_at : facts_at + facts_bytes]),
            self._copied(PIXELS_AT, (height, width, 3)),
            self._copied(labels_at, tuple(labels_hw)),
        )

    @property
    def now_s(self) -> float:
        """Seconds since the view began, as in `Point.at_s`."""
        return self._clock() - self._known.began_s

    def silent_s(self, figures: Figures) -> float:
        """Seconds since the last result of `figures`, or since the view began."""
        return self._clock() - figures.offered_s

    def without_labels_s(self, figures: Figures) -> float:
        """Seconds since the network's last new labels, or since the view began."""
        return self._clock() - figures.labels_s

    def source_age_s(self, figures: Figures) -> float | None:
        """How old the frame is now that the newest labels were computed from; None before the first result."""
        return figures.source_age_s + self.silent_s(figures) if figures.number else None

    def points(self, last_s: float = HISTORY_S) -> list[Point]:
        """Those of the last seconds, oldest first."""
        figures = self.figures()
        if figures.newest_point is None:
            return []
        room = POINTS + SPARE_POINTS
        ring = np.frombuffer(bytearray(self._memory[POINTS_AT : POINTS_AT + POINT.size * room]), _POINT_DTYPE)
        begin = max(0, figures.points - POINTS)
        chosen = ring[np.arange(begin, figures.points - 1) % room]
        since_s = self.now_s - last_s
        found = [Point(*values) for values in chosen[chosen["at_s"] >= since_s].tolist()]
        return found + [figures.newest_point] * (figures.newest_point.at_s >= since_s)

    def fps(self) -> float:
        """Results per second over the last seconds."""
        points = self.points(FPS_WINDOW_S)
        if len(points) < 2:
            return 0.0
        # Up to now and not to the last point: a loop that stands has a rate that falls.
        return (points[-1].number - points[0].number) / max(self.now_s - points[0].at_s, 1e-6)

    def _copied(self, at: int, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, np.uint8, count, at).reshape(shape).copy()


_POINT_DTYPE = np.dtype([("at_s", "<f8"), ("number", "<u8"), ("step_ms", "<f8"), ("age_ms", "<f8")])


def _points_of(head: bytes) -> int:
    return int(FIGURES.unpack(head)[5])


def _figures(head: bytes, payload: bytes) -> Figures:
    number, offered_s, labels_s, source_age_s, began_s, points, *rest = FIGURES.unpack(head)
    buckets = len(BUCKETS_S) + 1
    step, age = rest[: buckets + 1], rest[buckets + 1 :]
    return Figures(
        number,
        offered_s,
        labels_s,
        source_age_s,
        began_s,
        points,
        Point(*POINT.unpack(payload)) if payload else None,
        Histogram(tuple(step[:-1]), step[-1]),
        Histogram(tuple(age[:-1]), age[-1]),
    )


def _facts_place(head: bytes) -> slice:
    (length,) = FACTS_LENGTH.unpack(head)
    return slice(FACTS_AT, FACTS_AT + length)
