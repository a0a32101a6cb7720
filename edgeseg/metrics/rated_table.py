"""An accuracy table at a camera's frame rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import ROUNDING, AccuracyTable, frame_offset, offset_probabilities
from edgeseg.metrics.streaming import StartRule, streaming_ages, streaming_log


@dataclass(frozen=True)
class StreamedLoop:
    """What is predicted for a loop: what its reader finds at each camera frame, and how often the network runs."""

    slamiou: float
    """Predicted sLAmIoU."""
    mean_age_s: float
    """Mean over the camera's frames of how old the frame is that the labels read there come from."""
    steps_per_s: float
    """Steps of the network per second."""


@dataclass(frozen=True)
class RatedTable:
    """An accuracy table read at a camera's frame rate, which need not be that of the scored videos.

    Entry k of a table made at rate f stands for labels that are k / f seconds late. At a camera of rate r a latency l
    makes labels ceil(l * r) / r seconds late, which is entry ceil(l * r) * f / r: linear between its neighbours when
    that is no whole number. For a stateful network this is an approximation twice over, since its table's entries also
    hold the stride of their own rate.
    """

    table: AccuracyTable
    table_fps: float
    """Frame rate f of the scored videos."""
    camera_fps: float
    """Frame rate r of the camera."""

    def __post_init__(self) -> None:
        if not (0 < self.table_fps < math.inf and 0 < self.camera_fps < math.inf):
            raise InputError(f"frame rates must be positive | got {self.table_fps} and {self.camera_fps}")

    @property
    def is_exact(self) -> bool:
        """Whether every lookup is an entry of the table, none between two."""
        return is_whole_ratio(self.table_fps, self.camera_fps)

    def offset(self, latency_s: float) -> int:
        """k in frames of the camera."""
        return frame_offset(latency_s, 1.0 / self.camera_fps)

    def lamiou(self, latency_s: float) -> float:
        """LAmIoU at one latency."""
        return self._between(self._position(latency_s))

    def expected(self, latencies_s: Sequence[float] | np.ndarray) -> float:
        """Expected LAmIoU over measured samples."""
        shares = offset_probabilities(latencies_s, 1.0 / self.camera_fps)
        return sum(share * self._between(self._entry(k)) for k, share in shares.items())

    def streaming(self, latencies_s: Sequence[float] | np.ndarray, rule: StartRule | None = None) -> float:
        """Predicted sLAmIoU, as `streamed` tells it."""
        return self.streamed(latencies_s, rule).slamiou

    def streamed(self, latencies_s: Sequence[float] | np.ndarray, rule: StartRule | None = None) -> StreamedLoop:
        """The loop whose steps take `latencies_s`: the table's mean over the ages that its reader finds.

        Args:
            rule: when the loop starts a step, used up by the call; None: the latest-frame policy.
        """
        period_s = 1.0 / self.camera_fps
        log = streaming_log(latencies_s, period_s, rule=rule)
        took_s = log[-1].published_at_s - log[0].published_at_s
        ages, counts = np.unique(streaming_ages(log, period_s), return_counts=True)
        values = [self._between(self._entry(int(age))) for age in ages]
        return StreamedLoop(
            slamiou=float(np.average(values, weights=counts)),
            mean_age_s=float(np.average(ages, weights=counts)) * period_s,
            steps_per_s=(len(log) - 1) / took_s if took_s > 0 else math.inf,
        )

    def best_from(self, latency_s: float) -> float:
        """Highest LAmIoU at this latency or a greater one."""
        position = self._position(latency_s)
        return max(self._between(position), self.table.best_from(math.ceil(position)))

    def is_bound(self, latency_s: float) -> bool:
        """Whether the lookup lies beyond the table, so that its last entry stands for a lower one."""
        return self._position(latency_s) > len(self.table.miou) - 1

    def _position(self, latency_s: float) -> float:
        return self._entry(self.offset(latency_s))

    def _entry(self, k: int) -> float:
        position = k * self.table_fps / self.camera_fps
        nearest = round(position)
        return float(nearest) if abs(position - nearest) <= ROUNDING * max(1.0, position) else position

    def _between(self, position: float) -> float:
        low = math.floor(position)
        share = position - low
        return (1 - share) * self.table.at(low) + share * self.table.at(low + 1)


def is_whole_ratio(table_fps: float, camera_fps: float) -> bool:
    """Whether each offset of the camera is an entry of a table made at `table_fps`."""
    ratio = table_fps / camera_fps
    return abs(ratio - round(ratio)) <= ROUNDING * ratio
