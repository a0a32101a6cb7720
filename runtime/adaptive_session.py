"""A session that changes to another configuration of its bundle while latencies differ from the profile's."""

import threading
import time
from collections.abc import Callable

import numpy as np

from edgeseg.errors import EdgesegError
from edgeseg.runtime.ladder import Ladder, Move
from edgeseg.runtime.loop_session import OwnedSession, SessionEvent, SessionEvents, SessionStandIn

WARM_UP_STEPS = 2
"""The first steps of a session allocate, and are slow."""
CLOSE_S = 1.5
"""How long `close` waits for a configuration that is being loaded."""


class AdaptiveSession(SessionStandIn):
    """Steps the configuration that the ladder chooses.

    A second one stands by, loaded and warmed up: at first what the ladder would change to under load, later the one
    that ran before. A change to it takes no longer than a reset. Another one is loaded in its place on another thread,
    while steps go on. Either way the next step is its first, with a fresh state. No more than two are loaded at any
    time.

    Args:
        session: of the ladder's running configuration; owned by this from now on.
        ladder: used by this alone, in `step`.
        open_session: name of a configuration -> a session like this one of it. Called on the other thread.
        events: where changes are told; None: a list of its own.
    """

    def __init__(
        self,
        session: OwnedSession,
        ladder: Ladder,
        open_session: Callable[[str], OwnedSession],
        *,
        events: SessionEvents | None = None,
    ) -> None:
        super().__init__(session, events)
        self._ladder = ladder
        self._open_session = open_session
        self._changed = threading.Condition()
        # What the two threads share, guarded by the condition. The name that is wanted stays until it was tried.
        self._wanted: str | None = ladder.next_faster
        self._standby: OwnedSession | None = None
        self._unloadable: list[str] = []
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="edgeseg-ladder", daemon=True)
        self._thread.start()

    def step(self, frame: np.ndarray) -> np.ndarray:
        """As `Session.step`; where a change is due and its configuration loaded, in that."""
        if self._failure is not None:
            raise self._failure
        while self._unloadable:
            self._ladder.leave_out(self._unloadable.pop())
        if (move := self._ladder.decide()) is not None:
            self._change(move)
        begin = time.perf_counter()
        labels = self._session.step(frame)
        self._ladder.add(time.perf_counter() - begin)
        return labels

    def close(self) -> None:
        """Free the sessions; a configuration that is still being loaded is freed when that is over."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S)
        self._session.close()
        with self._changed:
            standby, self._standby = self._standby, None
        if standby is not None:
            standby.close()

    def _change(self, move: Move) -> None:
        """Take the session that stands by when it is the one, else have it loaded."""
        with self._changed:
            if self._wanted is not None:
                return
            fresh = self._standby
            if fresh is None or fresh.configuration.name != move.name:
                self._wanted = move.name
                self._changed.notify_all()
                return
            self._standby = self._session
        fresh.take_frames_of(self._session.frame_size_hw, changed=True)
        fresh.reset()
        self._session = fresh
        self._ladder.changed(move.name)
        self._events.add(SessionEvent(time.monotonic(), "switched", move.name, move.reason))

    def _guarded(self) -> None:
        try:
            while (name := self._next_wanted()) is not None:
                self._load(name)
        except BaseException as error:  # raised where the next step is asked for
            self._failure = error

    def _next_wanted(self) -> str | None:
        """What to load in the place of the session that stands by, which is freed; None at the end."""
        with self._changed:
            while self._wanted is None and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return None
            standby, self._standby = self._standby, None
        if standby is not None:
            standby.close()
        return self._wanted

    def _load(self, name: str) -> None:
        fresh: OwnedSession | None = None
        try:
            fresh = self._loaded(name)
        except (EdgesegError, MemoryError, OSError) as error:
            self._unloadable.append(name)
            self._events.add(SessionEvent(time.monotonic(), "left out", name, f"it cannot be loaded: {error}"))
        with self._changed:
            self._wanted = None
            if not self._stopped:
                self._standby, fresh = fresh, None
        if fresh is not None:
            fresh.close()

    def _loaded(self, name: str) -> OwnedSession:
        """A session of configuration `name`, warmed up."""
        session = self._open_session(name)
        try:
            session.take_frames_of(self._session.frame_size_hw, changed=True)
            blank = np.zeros((*session.frame_size_hw, 3), np.uint8)
            for _ in range(WARM_UP_STEPS):
                session.step(blank)
        except BaseException:
            session.close()
            raise
        return session
