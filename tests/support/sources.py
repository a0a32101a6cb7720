"""Sources that a test holds in its hand."""

import threading
import time

import numpy as np

from edgeseg.runtime.source import Frame, Source


class ScriptedSource(Source):
    """Gives frame i when the test lets it; raises `error` at its end if there is one."""

    name, fps, size_hw, paced = "scripted", 10.0, (32, 48), True
    is_lost = False

    def __init__(self, frames: int, error: Exception | None = None) -> None:
        self.frames, self.error, self.closed = frames, error, False
        self.allowed = threading.Semaphore(0)
        self._next = 0

    def read(self, stop: threading.Event) -> Frame | None:
        while not self.allowed.acquire(timeout=0.01):
            if stop.is_set():
                return None
        if self._next == self.frames:
            if self.error:
                raise self.error
            return None
        index, self._next = self._next, self._next + 1
        return Frame(index, time.monotonic(), self.picture(index))

    def picture(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 `(32, 48, 3)`."""
        return np.full((32, 48, 3), index, np.uint8)

    def close(self) -> None:
        self.closed = True
