"""What a search for token plans maximises: the latency-aware mIoU of a plan from its accuracy tables and latencies."""

from dataclasses import dataclass

import numpy as np

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable

STATISTICS = ("streaming", "expected")
"""What is maximised: as of `edgeseg.runtime.pick.STATISTICS`."""


@dataclass(frozen=True)
class Objective:
    """What is maximised: LAmIoU at a camera's frame rate, by the best of the ways to move labels."""

    camera_fps: float
    table_fps: float
    """Frame rate of the scored videos."""
    added_s: tuple[float, ...] = (0.0,)
    """What each way to move labels adds to the latency, in seconds."""
    statistic: str = "streaming"
    """One of `STATISTICS`."""

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise InputError(f"unknown statistic {self.statistic!r} | known: {', '.join(STATISTICS)}")

    def best(self, tables: np.ndarray, latencies_s: np.ndarray) -> tuple[float, int]:
        """LAmIoU of the best way, and its number.

        Args:
            tables: mIoU float64 `(W, K + 1)` at k = 0..K frames of delay, a row per way.
            latencies_s: float64 `(n,)`, in seconds.
        """
        scores = [
            getattr(RatedTable(AccuracyTable(tuple(row)), self.table_fps, self.camera_fps), self.statistic)(
                latencies_s + added
            )
            for row, added in zip(tables, self.added_s, strict=True)
        ]
        way = int(np.argmax(scores))
        return float(scores[way]), way
