"""A drive that is played without end, and a program that takes half of the core beside it."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.compensation import Recording
from edgeseg.data.video import Video


class BackAndForth(Video):
    """A recording played forward and backward without end; each read is a copy, as a camera's driver would make it."""

    def __init__(self, recording: Recording, length: int) -> None:
        self.name, self.fps = "street", recording.fps
        self.size_hw = recording.frames_rgb[0].shape[:2]
        self._recording, self._length = recording, length

    def __len__(self) -> int:
        return self._length

    def frame_rgb(self, index: int) -> np.ndarray:
        return self._recording.frames_rgb[self._place(index)].copy()

    def labels(self, index: int) -> np.ndarray:
        return self._recording.labels[self._place(index)]

    def _place(self, index: int) -> int:
        last = len(self._recording.frames_rgb) - 1
        return last - abs(last - index % (2 * last))


class BusyProcess:
    """A process that takes what it can of the cores that this one may run on, when it is told to."""

    def __init__(self) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=_spin, args=(os.getpid(),), daemon=True)

    def __enter__(self) -> "BusyProcess":
        self._process.start()
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(self, *details: object) -> None:
        self._process.kill()
        self._process.join()

    @contextmanager
    def working(self) -> Iterator[None]:
        """It works inside the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        os.kill(int(self._process.pid or 0), number)


def _spin(parent: int) -> None:
    """Until the parent is gone, even one that was killed."""
    while os.getppid() == parent:
        for _ in range(100_000):
            pass
