"""Sessions that a test holds in its hand."""

import threading

import numpy as np

from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.runtime.schedule import LATEST_FRAME
from edgeseg.runtime.session import Session


class HeldSession:
    """A session whose steps wait until the test lets them, around a real one.

    `entered` is released when a step begins; each step takes one from `allowed`.
    """

    def __init__(self, session: Session, compensation: Compensation = UNCOMPENSATED) -> None:
        self._session = session
        self.configuration, self.classes = session.configuration, session.classes
        self.compensation, self.schedule, self.pick = compensation, LATEST_FRAME, None
        self.entered, self.allowed = threading.Semaphore(0), threading.Semaphore(0)

    def step(self, frame: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.allowed.acquire(timeout=10)
        return self._session.step(frame)

    def reset(self) -> None:
        self._session.reset()

    def take_frames_of(self, size_hw: tuple[int, int], *, changed: bool = False) -> None:
        self._session.take_frames_of(size_hw, changed=changed)
