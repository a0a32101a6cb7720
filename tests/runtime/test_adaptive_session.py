import threading

import numpy as np
import pytest

from edgeseg.errors import DeviceError, InputError
from edgeseg.runtime.adaptive_session import AdaptiveSession
from edgeseg.runtime.kept_session import keep
from edgeseg.runtime.ladder import Move
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session import load
from edgeseg.runtime.source import VideoSource
from edgeseg.runtime.watched_session import WatchedSession
from support.videos import NumberedVideo
from support.waiting import threads_of_loops, until

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"


class HandLadder:
    """A ladder whose moves the test gives."""

    def __init__(self) -> None:
        self.due: Move | None = None
        self.latencies_s: list[float] = []
        self.changes: list[str] = []
        self.left_out: list[str] = []
        self.looks = 0

    def add(self, latency_s: float) -> None:
        self.latencies_s.append(latency_s)

    def decide(self) -> Move | None:
        self.looks += 1
        move, self.due = self.due, None
        if isinstance(move, Exception):
            raise move
        return move

    def changed(self, name: str) -> None:
        self.changes.append(name)

    def leave_out(self, name: str) -> None:
        self.left_out.append(name)


class Opened:
    """Sessions of the tiny bundle, each told when it is closed."""

    def __init__(self, bundle) -> None:
        self._bundle = bundle
        self.open_now: list[str] = []
        self.most_open = 0

    def __call__(self, name: str):
        if name not in (PLAIN, PHASES, FRAMES):
            raise DeviceError(f"no memory for {name}")
        session = load(self._bundle, configuration=name, threads=1)
        self.open_now.append(name)
        self.most_open = max(self.most_open, len(self.open_now))
        close = session.close

        def counted() -> None:
            if session in self.sessions:
                self.sessions.remove(session)
                self.open_now.remove(name)
            close()

        self.sessions.append(session)
        session.close = counted
        return session

    @property
    def sessions(self) -> list:
        return self.__dict__.setdefault("_sessions", [])


@pytest.fixture
def made(bundle):
    """(adaptive session that begins with plain, its ladder, its sessions)."""
    ladder, opened = HandLadder(), Opened(bundle)
    session = AdaptiveSession(opened(PLAIN), ladder, opened, look_s=0.001)
    yield session, ladder, opened
    session.close()
    until(lambda: threads_of_loops() == [])
    assert opened.open_now == []


def step_until_changed(session, ladder, frame, name):
    """Steps of frame 200, as a loop makes them, until the ladder was told; labels of the last one."""
    ladder.due = Move(name, "because")

    def stepped() -> bool:
        nonlocal labels
        labels = session.step(frame(200))
        return bool(ladder.changes) and ladder.changes[-1] == name

    labels = None
    until(stepped)
    return labels


def test_steps_are_timed_and_those_of_the_session(made, frame):
    session, ladder, _ = made
    assert session.step(frame(1)).shape == (32, 48)
    assert len(ladder.latencies_s) == 1
    assert 0 < ladder.latencies_s[0] < 10
    assert session.configuration.name == PLAIN


def test_another_configuration_takes_over_when_the_ladder_says_so(made, frame):
    session, ladder, opened = made
    step_until_changed(session, ladder, frame, FRAMES)
    assert session.configuration.name == FRAMES
    until(lambda: session.events.counts == {"switched": 1})
    assert opened.open_now == [FRAMES]
    (event,) = session.events.last
    assert (event.kind, event.configuration, event.reason) == ("switched", FRAMES, "because")


def test_the_state_of_the_next_configuration_begins_with_its_first_frame(made, frame):
    session, ladder, _ = made
    ladder.due = Move(FRAMES, "because")
    until(lambda: session._ready is not None)
    labels = session.step(frame(7))
    # The first graph: 255 on the right, as there is no frame before; the blank frames of the warm-up are forgotten.
    assert (labels[0, 0], labels[0, -1]) == (0, 255)
    assert session.step(frame(8))[0, -1] == 7


def test_steps_go_on_while_the_next_configuration_is_loaded(bundle, frame):
    ladder, opened, may_load = HandLadder(), Opened(bundle), threading.Event()

    def open_slowly(name):
        assert may_load.wait(10)
        return opened(name)

    with AdaptiveSession(opened(PLAIN), ladder, open_slowly, look_s=0.001) as session:
        ladder.due = Move(PHASES, "because")
        until(lambda: ladder.due is None)
        for _ in range(20):
            session.step(frame(1))
        assert session.configuration.name == PLAIN
        may_load.set()
        step_until_changed(session, ladder, frame, PHASES)


def test_two_sessions_are_loaded_at_most(made, frame):
    session, ladder, opened = made
    for name in (FRAMES, PHASES, PLAIN, FRAMES):
        step_until_changed(session, ladder, frame, name)
    until(lambda: opened.open_now == [FRAMES])
    assert opened.most_open == 2
    assert session.events.counts["switched"] == 4


def test_the_size_of_the_frames_is_kept(made):
    session, ladder, _ = made
    session.take_frames_of((64, 96), changed=True)
    step_until_changed(session, ladder, lambda value: np.full((64, 96, 3), value, np.uint8), FRAMES)
    assert session.frame_size_hw == (64, 96)


def test_a_size_that_changed_while_the_next_configuration_waited_is_taken(made):
    session, ladder, _ = made
    ladder.due = Move(FRAMES, "because")
    until(lambda: session._ready is not None)
    session.take_frames_of((64, 96), changed=True)
    assert session.step(np.zeros((64, 96, 3), np.uint8)).shape == (32, 48)
    assert session.configuration.name == FRAMES


def test_what_cannot_be_loaded_is_left_out_and_the_loop_goes_on(made, frame):
    session, ladder, _ = made
    ladder.due = Move("huge", "because")
    until(lambda: ladder.left_out == ["huge"])
    session.step(frame(1))
    assert session.configuration.name == PLAIN
    until(lambda: session.events.counts == {"left out": 1})
    assert "no memory for huge" in session.events.last[0].reason


def test_a_fault_of_the_ladder_is_raised_at_the_next_step(made, frame):
    session, ladder, _ = made
    ladder.due = ZeroDivisionError("ours")
    until(lambda: session._failure is not None)
    with pytest.raises(ZeroDivisionError, match="ours"):
        session.step(frame(1))


def test_a_session_that_nobody_took_is_freed_at_the_end(made):
    session, ladder, opened = made
    ladder.due = Move(FRAMES, "because")
    until(lambda: session._ready is not None)
    session.close()
    until(lambda: opened.open_now == [])
    assert ladder.changes == []


def test_results_tell_which_configuration_they_are_of(bundle):
    ladder, opened = HandLadder(), Opened(bundle)
    with AdaptiveSession(opened(PLAIN), ladder, opened, look_s=0.001) as session:
        names = []
        with Loop(session, VideoSource(NumberedVideo(10_000), paced=False)) as loop:
            for result in loop:
                names.append(result.configuration)
                if len(names) == 3:
                    ladder.due = Move(FRAMES, "because")
                if names[-1] == FRAMES:
                    break
        assert set(names) == {PLAIN, FRAMES}
        assert names == sorted(names, reverse=True)
        until(lambda: loop.summary.session_events == {"switched": 1})
        assert loop.summary.configuration == FRAMES


def test_no_stand_in_is_made_when_nothing_is_asked_for(bundle):
    with load(bundle, configuration=PLAIN, threads=1) as session:
        assert keep(session, bundle) is session


def test_adaptive_is_refused_for_a_configuration_that_was_named(bundle):
    with load(bundle, configuration=PLAIN, threads=1) as session, pytest.raises(InputError, match="this one was named"):
        keep(session, bundle, adaptive=True)


def test_both_can_be_asked_for_and_are_closed_together(bundle, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picked = load(bundle, fps=15, threads=1)
    with keep(picked, bundle, adaptive=True, step_limit_s=60) as session:
        assert isinstance(session, AdaptiveSession)
        assert isinstance(session._session, WatchedSession)
        assert session.step(frame(1)).shape == (32, 48)
        assert session.pick is picked.pick
    with pytest.raises(DeviceError, match="not active"):
        picked.step(frame(1))
    until(lambda: threads_of_loops() == [])
