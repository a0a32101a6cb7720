"""The watchdog of a session: an engine call that hangs is reported, left behind, and replaced by a fresh session.

A call into a driver cannot be ended from outside. It is made on a thread of its own, which can be given up.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.errors import DeviceError, InputError
from edgeseg.runtime.loop_session import SessionEvent, SessionEvents, SessionStandIn

if TYPE_CHECKING:
    from edgeseg.runtime.session import Session

MOST_RESTARTS = 3
"""Fresh sessions before it is given up."""
STEADY_STEPS = 100
"""Steps without a hang after which earlier ones are forgiven."""
LOAD_LIMIT_S = 60.0
"""A fresh session may take so long to load at least: engines are read, and some compile kernels first."""
CLOSE_S = 0.5
"""How long `close` waits for the engine's thread: it goes on freeing the engine, and a process ends within two seconds.
"""


class _Engine:
    """A session on a thread of its own, which nobody has to wait for.

    Args:
        open_session: called on the thread.
    """

    def __init__(self, open_session: "Callable[[], Session]") -> None:
        self.opened: Future[Session] = Future()
        self._jobs: queue.SimpleQueue[tuple[Future[np.ndarray], np.ndarray] | None] = queue.SimpleQueue()
        self._open_session = open_session
        self.thread = threading.Thread(target=self._run, name="edgeseg-engine", daemon=True)
        self.thread.start()

    def step(self, frame: np.ndarray) -> "Future[np.ndarray]":
        """Labels of a frame, once they are there."""
        labels: Future[np.ndarray] = Future()
        self._jobs.put((labels, frame))
        return labels

    def leave(self) -> None:
        """No more steps: the session is closed when the call that it is in returns, if ever."""
        self._jobs.put(None)

    def _run(self) -> None:
        try:
            session = self._open_session()
        except BaseException as error:
            self.opened.set_exception(error)
            return
        with session:
            self.opened.set_result(session)
            while (job := self._jobs.get()) is not None:
                labels, frame = job
                try:
                    labels.set_result(session.step(frame))
                except BaseException as error:  # raised where the labels are waited for
                    labels.set_exception(error)


class WatchedSession(SessionStandIn):
    """A session whose steps may take `limit_s` at most: then a fresh one takes its place, and the same frame.

    A network's state begins anew in the fresh session. The memory of the one that hangs is lost until its call returns.

    Args:
        session: owned by this from now on.
        reopen: makes a fresh session like it.
        limit_s: seconds; far above what a step takes, the first one of a session too.
        events: where restarts are told; None: a list of its own.
        most_restarts: fresh sessions in a row, without `STEADY_STEPS` steps between them, before it gives up.
        is_done_within: waits for a future, some seconds at most; whether it is done.

    Raises:
        InputError: the limit is not positive.
    """

    def __init__(
        self,
        session: "Session",
        reopen: "Callable[[], Session]",
        *,
        limit_s: float,
        events: SessionEvents | None = None,
        most_restarts: int = MOST_RESTARTS,
        is_done_within: "Callable[[Future[Any], float], bool] | None" = None,
    ) -> None:
        if not 0 < limit_s < float("inf"):
            raise InputError(f"the limit of a step is positive, in seconds | got {limit_s}")
        super().__init__(session, events)
        self._reopen = reopen
        self._limit_s = limit_s
        self._most_restarts = most_restarts
        self._is_done_within = is_done_within or (lambda future, seconds: bool(wait([future], seconds).done))
        self._engine = _Engine(lambda: session)
        self._hung = self._steady = 0

    def step(self, frame: np.ndarray) -> np.ndarray:
        """As `Session.step`, in a fresh session when the one at hand hangs.

        Raises:
            DeviceError: it hung too often, or no fresh session could be loaded.
        """
        while True:
            labels = self._engine.step(frame)
            if self._is_done_within(labels, self._limit_s):
                self._steady += 1
                if self._steady >= STEADY_STEPS:
                    self._hung = 0
                return labels.result()
            self._replace()

    def close(self) -> None:
        """Free the session; one that hangs is left behind. May be called twice."""
        self._engine.leave()
        self._engine.thread.join(CLOSE_S)

    def _replace(self) -> None:
        """Leave the engine that hangs, and load a fresh one."""
        self._hung, self._steady = self._hung + 1, 0
        name, size_hw = self._session.configuration.name, self._session.frame_size_hw
        what = f"a step of {name} on {self._session.device} took longer than {self._limit_s:g} s"
        self._engine.leave()
        if self._hung > self._most_restarts:
            raise DeviceError(
                f"{what}, again after {self._most_restarts} fresh sessions | restart the program, look at the device's "
                "driver and temperature, or allow more: --step-limit-s"
            )
        self._events.add(
            SessionEvent(
                time.monotonic(),
                "restarted",
                name,
                f"{what}; it is left behind, and a fresh session loaded ({self._hung} of {self._most_restarts})",
            )
        )
        self._engine = _Engine(self._reopen)
        limit_s = max(LOAD_LIMIT_S, self._limit_s)
        if not self._is_done_within(self._engine.opened, limit_s):
            self._engine.leave()
            raise DeviceError(
                f"{what}, and a fresh session was not loaded within {limit_s:g} s | restart the program, and look at "
                "the device's driver"
            )
        self._session = self._engine.opened.result()
        self._session.take_frames_of(size_hw, changed=True)
