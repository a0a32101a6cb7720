"""A session that changes to another configuration of its bundle while latencies differ from the profile's."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeseg.errors import EdgesegError
from edgeseg.runtime.ladder import Ladder, Move
from edgeseg.runtime.loop_session import OwnedSession, SessionEvent, SessionEvents, SessionStandIn

LOOK_S = 0.25
"""How often the ladder is asked."""
WARM_UP_STEPS = 2
"""The first steps of a session allocate, and are slow."""
CLOSE_S = 1.5
"""How long `close` waits for a configuration that is being loaded."""


@dataclass(frozen=True)
class _Ready:
    """A session that waits for the worker to take it."""

    session: OwnedSession
    move: Move


class AdaptiveSession(SessionStandIn):
    """Steps the configuration that the ladder chooses.

    Another thread asks the ladder, loads the next configuration and warms it up while steps go on; the next step then
    is its first, with a fresh state, and that thread frees the one before. No more than two are loaded at any time.

    Args:
        session: of the ladder's running configuration; owned by this from now on.
        ladder: used by this alone.
        open_session: name of a configuration -> a session like this one of it. Called on the other thread.
        events: where changes are told; None: a list of its own.
        look_s: seconds between two looks at the ladder.
    """

    def __init__(
        self,
        session: OwnedSession,
        ladder: Ladder,
        open_session: Callable[[str], OwnedSession],
        *,
        events: SessionEvents | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        super().__init__(session, events)
        self._ladder = ladder
        self._open_session = open_session
        self._look_s = look_s
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._ready: _Ready | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="edgeseg-ladder", daemon=True)
        self._thread.start()

    def step(self, frame: np.ndarray) -> np.ndarray:
        """As `Session.step`."""
        if self._failure is not None:
            raise self._failure
        if self._ready is not None:
            self._take()
        begin = time.perf_counter()
        labels = self._session.step(frame)
        self._ladder.add(time.perf_counter() - begin)
        return labels

    def close(self) -> None:
        """Free the session; a configuration that is still being loaded is freed when that is over."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
        self._session.close()

    def _take(self) -> None:
        """Change to the session that is ready, on the worker's thread: between two steps."""
        with self._changed:
            ready = self._ready
            if ready is None:
                return
            ready.session.take_frames_of(self._session.frame_size_hw, changed=True)
            self._session, self._ready = ready.session, None
            self._changed.notify_all()

    def _guarded(self) -> None:
        try:
            while not self._stop.wait(self._look_s):
                if (move := self._ladder.decide()) is not None:
                    self._change(move)
        except BaseException as error:  # raised where the next step is asked for
            self._failure = error

    def _change(self, move: Move) -> None:
        try:
            fresh = self._loaded(move.name)
        except (EdgesegError, MemoryError, OSError) as error:
            self._ladder.leave_out(move.name)
            self._events.add(SessionEvent(time.monotonic(), "left out", move.name, f"it cannot be loaded: {error}"))
            return
        before = self._session
        with self._changed:
            self._ready = _Ready(fresh, move)
            while self._ready is not None and not self._stop.is_set():
                self._changed.wait()
            if self._ready is not None:
                self._ready = None
                before = fresh
        before.close()
        if before is fresh:
            return
        self._ladder.changed(move.name)
        self._events.add(SessionEvent(time.monotonic(), "switched", move.name, move.reason))

    def _loaded(self, name: str) -> OwnedSession:
        """A session of configuration `name`, warmed up, with no frame in its state."""
        session = self._open_session(name)
        try:
            session.take_frames_of(self._session.frame_size_hw, changed=True)
            blank = np.zeros((*session.frame_size_hw, 3), np.uint8)
            for _ in range(WARM_UP_STEPS):
                session.step(blank)
            session.reset()
        except BaseException:
            session.close()
            raise
        return session
