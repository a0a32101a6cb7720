"""What the camera loop needs of a session, and what happens to one that changes while the loop runs."""

import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from edgeseg.bundle import BundleConfiguration
from edgeseg.classes import ClassSet
from edgeseg.config import Compensation
from edgeseg.runtime import run_log
from edgeseg.runtime.schedule import Schedule

if TYPE_CHECKING:
    from edgeseg.runtime.pick import Pick

_O = TypeVar("_O", bound="OwnedSession")
_S = TypeVar("_S", bound="SessionStandIn")

EVENTS_KEPT = 100
"""The last events that are kept: a loop runs for months. All of them are counted, and logged."""
_log = logging.getLogger(__name__)


class LoopSession(Protocol):
    """A session, or what stands for one and changes it while the loop runs: used from one thread at a time."""

    @property
    def configuration(self) -> BundleConfiguration:
        """What gives the labels: of the last step, once there was one."""

    @property
    def classes(self) -> ClassSet | None:
        """The bundle's classes."""

    @property
    def compensation(self) -> Compensation:
        """How the loop moves labels."""

    @property
    def schedule(self) -> Schedule:
        """When the loop starts a step."""

    @property
    def pick(self) -> "Pick | None":
        """Why this configuration was taken; None when it was named."""

    @property
    def events(self) -> "SessionEvents":
        """What happened to it since it was loaded."""

    def step(self, frame: np.ndarray) -> np.ndarray:
        """uint8 `(H, W, 3)` frame -> uint8 `(h, w)` labels, owned by the caller (`Session.step`)."""

    def reset(self) -> None:
        """Forget the frames so far."""

    def take_frames_of(self, frame_size_hw: tuple[int, int], *, changed: bool = False) -> None:
        """Take frames of that size from now on (`Session.take_frames_of`)."""


@dataclass(frozen=True)
class SessionEvent:
    """One change of a session during a loop."""

    at_s: float
    """Seconds on the monotonic clock."""
    kind: str
    """`switched` to another configuration, `restarted` after a step that hung, `reset` (its state began anew, because
    the video broke off), or `left out`: a configuration that could not be loaded."""
    configuration: str
    """What runs from then on; of `left out` what does not."""
    reason: str


class SessionEvents:
    """The events of a session: counted, the last ones kept. Each is logged when it is added. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: deque[SessionEvent] = deque(maxlen=EVENTS_KEPT)
        self._counts: Counter[str] = Counter()

    def add(self, event: SessionEvent) -> None:
        """Keep, count and log an event."""
        with self._lock:
            self._last.append(event)
            self._counts[event.kind] += 1
        fields = run_log.event(
            f"session_{event.kind.replace(' ', '_')}", configuration=event.configuration, reason=event.reason
        )
        _log.warning("%s %s: %s", event.kind, event.configuration, event.reason, extra=fields)

    @property
    def last(self) -> tuple[SessionEvent, ...]:
        """The last `EVENTS_KEPT` of them, oldest first."""
        with self._lock:
            return tuple(self._last)

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how many there were."""
        with self._lock:
            return dict(self._counts)


def lead_s(configuration: BundleConfiguration, source_fps: float) -> float:
    """How far ahead of their frame a configuration's labels are: frames of the videos that it was trained on.

    The accuracy table tells those videos' frame rate; without one it is taken to be the source's.
    """
    accuracy = configuration.accuracy
    return configuration.knobs.target_offset / (source_fps if accuracy is None else accuracy.fps)


class OwnedSession(LoopSession, Protocol):
    """One that has to be closed."""

    @property
    def device(self) -> str:
        """Device string."""

    @property
    def frame_size_hw(self) -> tuple[int, int]:
        """Height and width of the frames that `step` takes."""

    def close(self) -> None:
        """Free what it holds. May be called twice."""

    def __enter__(self: _O) -> _O:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


class SessionStandIn(ABC):
    """Stands for a session that may be another one tomorrow, and owns it.

    Args:
        session: the first one.
        events: where changes are told; None: a list of its own.
    """

    def __init__(self, session: OwnedSession, events: SessionEvents | None) -> None:
        self._session = session
        self._events = SessionEvents() if events is None else events

    @property
    def configuration(self) -> BundleConfiguration:
        """What gives the labels."""
        return self._session.configuration

    @property
    def classes(self) -> ClassSet | None:
        """The bundle's classes."""
        return self._session.classes

    @property
    def compensation(self) -> Compensation:
        """How the loop moves labels."""
        return self._session.compensation

    @property
    def schedule(self) -> Schedule:
        """When the loop starts a step."""
        return self._session.schedule

    @property
    def pick(self) -> "Pick | None":
        """Why the first configuration was taken."""
        return self._session.pick

    @property
    def events(self) -> SessionEvents:
        """What changed since it was loaded."""
        return self._events

    @property
    def device(self) -> str:
        """Device string."""
        return self._session.device

    @property
    def frame_size_hw(self) -> tuple[int, int]:
        """Height and width of the frames that `step` takes."""
        return self._session.frame_size_hw

    @abstractmethod
    def step(self, frame: np.ndarray) -> np.ndarray:
        """As `Session.step`."""

    def reset(self) -> None:
        """Forget the frames so far."""
        self._session.reset()

    def take_frames_of(self, frame_size_hw: tuple[int, int], *, changed: bool = False) -> None:
        """As `Session.take_frames_of`."""
        self._session.take_frames_of(frame_size_hw, changed=changed)

    @abstractmethod
    def close(self) -> None:
        """Free what it holds. May be called twice."""

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
