"""The loop's third stage: labels moved to the newest camera frame while the network computes the next ones."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.sample_window import SampleWindow
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame

if TYPE_CHECKING:
    from edgeseg.config import Compensation
    from edgeseg.runtime.compensation import MovedLabels

RATES = ("network", "camera")
INBOX = 16
"""Frames and labels that wait for the stage. All that wait are taken at once, so that only a stall fills it."""


@dataclass(frozen=True)
class Finished:
    """What the network's worker hands over."""

    source_index: int
    source_at_s: float
    """When that frame was captured."""
    labels: np.ndarray
    """uint8 `(h, w)`, not changed by anyone from now on."""
    step_ms: float


@dataclass(frozen=True)
class Moved:
    """What the stage publishes."""

    frame: Frame
    """The newest frame known when the labels were moved."""
    moved: "MovedLabels"
    source: Finished
    """The network's step that the labels come from."""
    stands_for_s: float
    """The time that the labels were moved to, on the source's clock."""
    warp_ms: float


@dataclass(frozen=True)
class CompensationSummary:
    """What compensation did during a loop. Percentiles over the last 65,536 results."""

    mode: str
    flow: str
    divisor: int
    rate: str
    warp_ms: dict[str, float]
    """p50, p90, p99 and max of what one result took, from the frame or the labels that made the stage start, in ms.
    At the network's rate the flow has mostly been computed before, when its frame came."""
    source_age_ms: dict[str, float]
    """The same of the age of the frame that the labels were computed from, when they were published, in ms."""
    moved_px: float
    """Mean movement over the results, in pixels."""
    fallbacks: dict[str, int]
    """Reason -> how often labels had to stay as they were."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


class WarpStage:
    """Takes frames and finished labels, in the order in which they come, and publishes moved labels.

    Args:
        compensation: how labels are moved.
        rate: `network`: a result per finished step. `camera`: a result per captured frame, and another one when newer
            labels are finished before the next frame.
        period_s: time between two frames of the source. Modes that extrapolate move labels this far beyond the newest
            frame: to the next frame, which is the first one that can be there when they are read.
        paced: whether frames come at their time. Then what is late is skipped: the newest frame alone gives a result.
        ignore_value: for pixels that are marked invalid.
        stop: ends every wait.

    Raises:
        InputError: an unknown rate.
    """

    def __init__(
        self,
        compensation: "Compensation",
        *,
        rate: str,
        period_s: float,
        paced: bool,
        ignore_value: int,
        stop: threading.Event,
    ) -> None:
        # Loops without compensation do without the optical flow's module.
        from edgeseg.runtime.compensation import Compensator

        check_rate(rate)
        self._compensation, self._rate = compensation, rate
        self._compensator = Compensator(compensation, ignore_value=ignore_value)
        self._paced = paced
        self._ahead_s = period_s if "extrapolate" in compensation.mode else 0.0
        self._inbox: LatestSlot[Frame | Finished] = LatestSlot(stop, capacity=INBOX)
        self._in_work: int | None = None
        self._newest: Frame | None = None
        self._source: Finished | None = None
        self._published = 0
        self._moved_px_sum = 0.0
        self._warp_ms, self._source_age_ms = SampleWindow(), SampleWindow()

    def put_frame(self, frame: Frame) -> bool:
        """Hand over a captured frame; False when stopped."""
        return self._inbox.put(frame, wait=not self._paced)

    def take_note(self, index: int) -> None:
        """The network starts on frame `index`: the stage must know this frame, however late it is."""
        self._in_work = index

    def put_labels(self, finished: Finished) -> bool:
        """Hand over a finished step; False when stopped."""
        return self._inbox.put(finished, wait=not self._paced)

    def close(self) -> None:
        """Nothing more will come."""
        self._inbox.close()

    def run(self, publish: Callable[[Moved], float]) -> None:
        """Publish until closed and empty, or stopped. `publish` returns when the labels could be read."""
        while batch := self._take():
            begin = time.perf_counter()
            due = False
            for item in self._needed(batch):
                due |= self._add(item)
            if due and (result := self._moved(begin)) is not None:
                self._count(result, publish(result))

    def summary(self) -> CompensationSummary:
        """What the stage has done so far."""
        return CompensationSummary(
            mode=self._compensation.mode,
            flow=self._compensation.flow,
            divisor=self._compensation.divisor,
            rate=self._rate,
            warp_ms=self._warp_ms.percentiles(),
            source_age_ms=self._source_age_ms.percentiles(),
            moved_px=round(self._moved_px_sum / max(1, self._published), 3),
            fallbacks=dict(self._compensator.fallbacks),
        )

    def _take(self) -> list[Frame | Finished]:
        if self._paced:
            return self._inbox.take_all()
        item = self._inbox.take()
        return [] if item is None else [item]

    def _needed(self, batch: list[Frame | Finished]) -> Iterator[Frame | Finished]:
        """All labels; of the frames the newest one, and those that labels come from or will come from."""
        sources = {item.source_index for item in batch if isinstance(item, Finished)} | {self._in_work}
        newest = max((item.index for item in batch if isinstance(item, Frame)), default=None)
        for item in batch:
            if isinstance(item, Finished) or item.index == newest or item.index in sources:
                yield item

    def _add(self, item: Frame | Finished) -> bool:
        """Take an item in; whether a result is due."""
        if isinstance(item, Frame):
            self._compensator.add_frame(item.index, item.rgb, item.captured_at_s)
            self._newest = item
            return self._rate == "camera"
        self._compensator.add_labels(item.labels, item.source_index)
        self._source = item
        return True

    def _moved(self, begin: float) -> Moved | None:
        frame, source = self._newest, self._source
        if frame is None or source is None:
            return None
        to_s = frame.captured_at_s + self._ahead_s
        moved = self._compensator.labels_at(to_s)
        if moved is None:
            return None
        stands_for_s = source.source_at_s if moved.fallback or self._compensation.mode == "none" else to_s
        warp_ms = 1e3 * (time.perf_counter() - begin)
        return Moved(frame, moved, source, stands_for_s, warp_ms)

    def _count(self, result: Moved, published_at_s: float) -> None:
        self._published += 1
        self._moved_px_sum += result.moved.moved_px
        self._warp_ms.add(result.warp_ms)
        self._source_age_ms.add(1e3 * (published_at_s - result.source.source_at_s))


def check_rate(rate: str) -> None:
    """Refuse an unknown rate.

    Raises:
        InputError: the message lists the known ones.
    """
    if rate not in RATES:
        raise InputError(f"unknown rate {rate!r} | known: {', '.join(RATES)}")
