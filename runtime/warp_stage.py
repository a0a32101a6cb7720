"""The loop's third stage: labels moved to the newest camera frame while the network computes the next ones."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.frame_period import FramePeriod
from edgeseg.runtime.sample_window import SampleWindow
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame

if TYPE_CHECKING:
    from edgeseg.config import Compensation
    from edgeseg.runtime.compensation import MovedLabels

RATES = ("network", "camera")
INBOX = 16
"""Frames and labels that wait for the stage. Where frames come at their time there are never so many: a newer frame
takes the place of one that nobody needs."""


@dataclass(frozen=True)
class Finished:
    """What the network's worker hands over."""

    frame: Frame
    """The frame that the labels were computed from."""
    labels: np.ndarray
    """uint8 `(h, w)`, not changed by anyone from now on."""
    step_ms: float
    configuration: str = ""
    """Name of the configuration that computed them."""


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

    name: str
    """`Compensation.name`."""
    rate: str
    warp_ms: dict[str, float]
    """p50, p90, p99 and max of what one result took, from the frame or the labels that made the stage start, in ms.
    At the network's rate the flow has mostly been computed before, when its frame came."""
    source_age_ms: dict[str, float]
    """The same of the age of the frame that the labels were computed from, when they were published, in ms."""
    moved_px: float
    """Mean over the results of how far their pixels moved (`MovedLabels.moved_px`, a root mean square)."""
    invalid_share: float | None
    """Mean share of pixels that were hidden in the frame that the labels come from, over the results that were checked;
    None where none was."""
    fallbacks: dict[str, int]
    """Reason -> how often labels had to stay as they were."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


class WarpStage:
    """Takes frames and finished labels, in the order in which they come, and publishes moved labels.

    Args:
        compensation: how labels are moved; one that moves them.
        rate: `network`: a result per finished step. `camera`: a result per captured frame, and another one when newer
            labels are finished before the next frame.
        period_s: time between two frames, as the source tells it. Modes that extrapolate move labels a period beyond
            the newest frame: to the next frame, which is the first one that can be there when they are read. Where
            frames come at their time, the period is taken from their capture times once there are some (`FramePeriod`).
        lead_s: how far ahead of their frame the network's labels are, as a network trained to anticipate gives them.
        paced: whether frames come at their time. Then what is late is skipped: the newest frame alone gives a result.
        ignore_value: for pixels that are marked invalid.
        check_consistency: tell the share of invalid pixels (`edgeseg.runtime.compensation.Compensator`).
        stop: ends every wait.
    """

    def __init__(
        self,
        compensation: "Compensation",
        *,
        rate: str,
        period_s: float,
        lead_s: float = 0.0,
        paced: bool,
        ignore_value: int,
        check_consistency: bool = False,
        stop: threading.Event,
    ) -> None:
        # Loops without compensation do without the optical flow's module.
        from edgeseg.runtime.compensation import Compensator

        self._compensation, self._rate = compensation, rate
        self._compensator = Compensator(compensation, ignore_value=ignore_value, check_consistency=check_consistency)
        self._paced = paced
        self._period_s = period_s
        self._measured_period = FramePeriod(period_s)
        self._lead_s = lead_s
        self._inbox: LatestSlot[Frame | Finished] = LatestSlot(stop, capacity=INBOX)
        self._noted: set[int] = set()
        self._noted_lock = threading.Lock()
        self._newest: Frame | None = None
        self._came_with_labels: int | None = None
        self._source: Finished | None = None
        self._published = 0
        self._moved_px_sum = 0.0
        self._checked, self._invalid_share_sum = 0, 0.0
        self._warp_ms, self._source_age_ms = SampleWindow(), SampleWindow()
        self.is_busy = False
        """Whether labels are being moved or published."""

    def note_source(self, frame: Frame) -> None:
        """The network takes `frame`: it is kept until its labels have come, however late the stage is.

        To be called before the next frame is put, which would take its place.
        """
        with self._noted_lock:
            self._noted.add(frame.index)

    def put_frame(self, frame: Frame) -> bool:
        """Hand over a captured frame; False when stopped."""
        if not self._paced:
            return self._inbox.put(frame, wait=True)
        return self._inbox.put(frame, replaces=self._is_needless)

    def put_labels(self, finished: Finished) -> bool:
        """Hand over a finished step; False when stopped."""
        if not self._paced:
            return self._inbox.put(finished, wait=True)
        return self._inbox.put(finished, replaces=lambda held: isinstance(held, Finished))

    def close(self) -> None:
        """Nothing more will come."""
        self._inbox.close()

    def run(self, publish: Callable[[Moved], float]) -> None:
        """Publish until closed and empty, or stopped. `publish` returns when the labels could be read."""
        while batch := self._take():
            self.is_busy = True
            begin = time.perf_counter()
            due = False
            for item in batch:
                due |= self._add(item)
            if due and (result := self._moved(begin)) is not None:
                self._count(result, publish(result))
            self.is_busy = False

    def summary(self) -> CompensationSummary:
        """What the stage has done so far."""
        return CompensationSummary(
            name=self._compensation.name,
            rate=self._rate,
            warp_ms=self._warp_ms.percentiles(),
            source_age_ms=self._source_age_ms.percentiles(),
            moved_px=round(self._moved_px_sum / max(1, self._published), 3),
            invalid_share=self._invalid_share_sum / self._checked if self._checked else None,
            fallbacks=dict(self._compensator.fallbacks),
        )

    def _take(self) -> list[Frame | Finished]:
        if self._paced:
            return self._inbox.take_all()
        item = self._inbox.take()
        return [] if item is None else [item]

    def _is_needless(self, held: "Frame | Finished") -> bool:
        """Whether an item that waits can go when a newer frame comes: a frame that labels will not come from."""
        with self._noted_lock:
            return isinstance(held, Frame) and held.index not in self._noted

    def _add(self, item: Frame | Finished) -> bool:
        """Take an item in; whether a result is due."""
        if isinstance(item, Frame):
            if item.index == self._came_with_labels:
                self._came_with_labels = None
                return False
            self._add_frame(item)
            return self._rate == "camera"
        frame = item.frame
        if self._newest is None or frame.index > self._newest.index:
            # A fast network is ready before capture has handed the frame over here.
            self._add_frame(frame)
            self._came_with_labels = frame.index
        shown_s = self._moment_s(frame) + self._lead_s if self._lead_s else None
        self._compensator.add_labels(item.labels, frame.index, shown_s)
        self._source = item
        with self._noted_lock:
            self._noted = {index for index in self._noted if index > frame.index}
        return True

    def _add_frame(self, frame: Frame) -> None:
        goes_on = self._newest is None or frame.stretch == self._newest.stretch
        self._compensator.add_frame(frame.index, frame.rgb, self._moment_s(frame), goes_on=goes_on)
        self._newest = frame
        if self._paced:
            self._measured_period.add(frame.index, frame.captured_at_s)

    @property
    def _ahead_s(self) -> float:
        """How far beyond the newest frame labels are moved."""
        return self._measured_period.seconds if "extrapolate" in self._compensation.mode else 0.0

    def _moment_s(self, frame: Frame) -> float:
        """When a frame shows the scene. Frames that wait until they are taken are those of a recording at its rate,
        however fast they come."""
        return frame.captured_at_s if self._paced else frame.index * self._period_s

    def _moved(self, begin: float) -> Moved | None:
        frame, source = self._newest, self._source
        if frame is None or source is None:
            return None
        moved = self._compensator.labels_at(self._moment_s(frame) + self._ahead_s)
        if moved is None:
            return None
        unmoved = moved.fallback is not None
        stands_for_s = source.frame.captured_at_s + self._lead_s if unmoved else frame.captured_at_s + self._ahead_s
        warp_ms = 1e3 * (time.perf_counter() - begin)
        return Moved(frame, moved, source, stands_for_s, warp_ms)

    def _count(self, result: Moved, published_at_s: float) -> None:
        self._published += 1
        self._moved_px_sum += result.moved.moved_px
        if not math.isnan(result.moved.invalid_share):
            self._checked += 1
            self._invalid_share_sum += result.moved.invalid_share
        self._warp_ms.add(result.warp_ms)
        self._source_age_ms.add(1e3 * (published_at_s - result.source.frame.captured_at_s))


def chosen_rate(rate: str | None, compensation: "Compensation", *, check_consistency: bool) -> str:
    """The rate of results: the one given, else the camera's where labels are moved and the network's elsewhere.

    Raises:
        InputError: an unknown rate, or one that only moved labels have.
    """
    chosen = rate or ("camera" if compensation.moves else "network")
    if chosen not in RATES:
        raise InputError(f"unknown rate {rate!r} | known: {', '.join(RATES)}")
    if not compensation.moves and (chosen == "camera" or check_consistency):
        what = "labels at the camera's rate" if chosen == "camera" else "labels with a share of invalid pixels"
        raise InputError(
            f"{what} are moved labels, and the compensation is none | give one, such as late-warp+extrapolate, or "
            "leave that out"
        )
    return chosen
