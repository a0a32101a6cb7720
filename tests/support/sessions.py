"""Sessions that a test holds in its hand."""

import threading
from typing import Any

import numpy as np

from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.runtime.loop_session import SessionEvents
from edgeseg.runtime.schedule import LATEST_FRAME
from edgeseg.runtime.session import Session


class HeldSession:
    """A session whose steps wait until the test lets them, around a real one.

    `entered` is released when a step begins; each step takes one from `allowed`, and raises `failure` if there is one.
    """

    def __init__(self, session: Session, compensation: Compensation = UNCOMPENSATED) -> None:
        self._session = session
        self.configuration, self.classes = session.configuration, session.classes
        self.compensation, self.schedule, self.pick = compensation, LATEST_FRAME, None
        self.events = SessionEvents()
        self.entered, self.allowed = threading.Semaphore(0), threading.Semaphore(0)
        self.failure: Exception | None = None

    def step(self, frame: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.allowed.acquire(timeout=10)
        if self.failure is not None:
            raise self.failure
        return self._session.step(frame)

    def reset(self) -> None:
        self._session.reset()

    def take_frames_of(self, size_hw: tuple[int, int], *, changed: bool = False) -> None:
        self._session.take_frames_of(size_hw, changed=changed)


class HangingSession:
    """A real session that hangs at step `at_step` (the first is 1) until the test lets it go; None: it never does."""

    def __init__(self, session: Session, let_go: threading.Event, *, at_step: int | None) -> None:
        self._session, self._let_go, self._at_step = session, let_go, at_step
        self._steps = 0
        self.is_hanging = self.closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def step(self, frame: np.ndarray) -> np.ndarray:
        self._steps += 1
        if self._steps == self._at_step:
            self.is_hanging = True
            assert self._let_go.wait(30)
        return self._session.step(frame)

    def __enter__(self) -> "HangingSession":
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True
        self._session.close()
