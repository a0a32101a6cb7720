import threading

import numpy as np
import pytest

from edgeseg.errors import DeviceError, InputError
from edgeseg.runtime import watched_session
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from edgeseg.runtime.watched_session import WatchedSession
from support.sessions import HangingSession
from support.videos import NumberedVideo
from support.waiting import threads_of_loops, until

LIMIT_S = 7.0
"""Never waited for: a stand-in tells hangs at once, however slow the machine is."""
STATEFUL = "phases_32x48_rho0-concat"


class Sessions:
    """Opens real sessions of the tiny bundle, the first `hanging` of which hang at their step `at_step`."""

    def __init__(self, bundle, *, hanging: int, at_step: int = 2, configuration: str = STATEFUL) -> None:
        self._bundle, self._hanging, self._at_step = bundle, hanging, at_step
        self._configuration = configuration
        self.let_go = threading.Event()
        self.opened: list[HangingSession] = []

    def open(self) -> HangingSession:
        hangs = len(self.opened) < self._hanging
        session = load(self._bundle, configuration=self._configuration, threads=1)
        self.opened.append(HangingSession(session, self.let_go, at_step=self._at_step if hangs else None))
        return self.opened[-1]

    def is_done_within(self, future, seconds: float) -> bool:
        until(lambda: future.done() or (seconds == LIMIT_S and self.opened[-1].is_hanging))
        return future.done()


@pytest.fixture
def watched(bundle):
    """hanging -> (watched session, its sessions); lets all that hang go at the end."""
    made = []

    def make(hanging: int, **changes):
        sessions = Sessions(bundle, hanging=hanging, **changes)
        session = WatchedSession(
            sessions.open(), sessions.open, limit_s=LIMIT_S, is_done_within=sessions.is_done_within
        )
        made.append((session, sessions))
        return made[-1]

    yield make
    for session, sessions in made:
        sessions.let_go.set()
        session.close()
    until(lambda: threads_of_loops() == [])


def test_steps_are_those_of_the_session_when_nothing_hangs(watched, bundle, frame):
    session, _ = watched(0)
    with load(bundle, configuration=STATEFUL, threads=1) as plain:
        for value in (1, 2, 3):
            np.testing.assert_array_equal(session.step(frame(value)), plain.step(frame(value)))
    assert session.events.counts == {}


def test_a_fresh_session_takes_the_frame_when_a_step_hangs(watched, frame):
    session, sessions = watched(1)
    session.step(frame(1))
    labels = session.step(frame(2))
    # The first graph of a stateful network: 255 on the right, as there is no frame before.
    assert (labels[0, 0], labels[0, -1]) == (0, 255)
    assert session.step(frame(3))[0, -1] == 2
    assert len(sessions.opened) == 2
    (event,) = session.events.last
    assert (event.kind, event.configuration) == ("restarted", STATEFUL)
    assert "took longer than 7 s" in event.reason
    assert "1 of 3" in event.reason


def test_the_session_left_behind_is_closed_when_its_call_returns(watched, frame):
    session, sessions = watched(1, at_step=1)
    session.step(frame(1))
    assert not sessions.opened[0].closed
    sessions.let_go.set()
    until(lambda: sessions.opened[0].closed)
    assert not sessions.opened[1].closed
    session.close()
    assert sessions.opened[1].closed


def test_it_gives_up_when_fresh_sessions_hang_too(watched, frame):
    session, sessions = watched(99, at_step=1)
    with pytest.raises(DeviceError, match=r"again after 3 fresh sessions \| restart the program"):
        session.step(frame(1))
    assert len(sessions.opened) == 4
    assert session.events.counts == {"restarted": 3}


def test_earlier_hangs_are_forgiven_after_many_steps(watched, frame, monkeypatch):
    monkeypatch.setattr(watched_session, "STEADY_STEPS", 2)
    session, _ = watched(5, at_step=3)
    for value in range(12):
        session.step(frame(value))
    assert session.events.counts == {"restarted": 5}


def test_the_size_of_the_frames_is_kept_in_the_fresh_session(watched):
    session, sessions = watched(1, at_step=1)
    session.take_frames_of((64, 96))
    assert session.step(np.zeros((64, 96, 3), np.uint8)).shape == (32, 48)
    assert sessions.opened[1].frame_size_hw == (64, 96)


def test_an_error_of_the_step_is_raised_as_it_is(watched, frame):
    session, _ = watched(0)
    with pytest.raises(InputError, match="a frame is uint8"):
        session.step(np.zeros((3, 3, 3), np.uint8))
    assert session.step(frame(1)).shape == (32, 48)


def test_the_failure_to_load_a_fresh_session_is_raised(bundle, frame):
    sessions = Sessions(bundle, hanging=1, at_step=1)

    def fail():
        raise DeviceError("the device is gone")

    session = WatchedSession(sessions.open(), fail, limit_s=0.05)
    with pytest.raises(DeviceError, match="the device is gone"):
        session.step(frame(1))
    sessions.let_go.set()


def test_it_gives_up_when_a_fresh_session_is_not_loaded_in_time(bundle, frame, monkeypatch):
    monkeypatch.setattr(watched_session, "LOAD_LIMIT_S", 0.01)
    sessions = Sessions(bundle, hanging=1, at_step=1)

    def never():
        sessions.let_go.wait(10)
        raise DeviceError("too late")

    session = WatchedSession(sessions.open(), never, limit_s=0.05)
    with pytest.raises(DeviceError, match=r"was not loaded within 0\.05 s"):
        session.step(frame(1))
    sessions.let_go.set()


def test_a_limit_is_positive(bundle):
    with load(bundle, configuration=STATEFUL) as session, pytest.raises(InputError, match="limit of a step"):
        WatchedSession(session, lambda: session, limit_s=0)


def test_the_loop_goes_on_when_an_engine_call_hangs(watched):
    session, _ = watched(1, at_step=4, configuration="plain_32x48")
    with Loop(session, VideoSource(NumberedVideo(8), paced=False)) as loop:
        indices = [result.frame_index for result in loop]
    assert indices == list(range(8))
    assert loop.summary.session_events == {"restarted": 1}
    assert loop.summary.as_dict()["last_events"][0]["kind"] == "restarted"
