"""Figures of an endless stream of samples in constant memory."""

import numpy as np

CAPACITY = 65_536
"""Samples kept: over an hour at 15 a second."""
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}


class SampleWindow:
    """The last `CAPACITY` samples."""

    def __init__(self) -> None:
        self._samples = np.empty(CAPACITY, np.float32)
        self._count = 0

    def add(self, value: float) -> None:
        """Add a sample; the oldest one goes when the window is full."""
        self._samples[self._count % CAPACITY] = value
        self._count += 1

    def percentiles(self) -> dict[str, float]:
        """p50, p90, p99 and max of the samples held; empty when there are none."""
        held = self._samples[: min(self._count, CAPACITY)]
        if not held.size:
            return {}
        return {name: round(float(np.percentile(held, percent)), 3) for name, percent in _PERCENTILES.items()}
