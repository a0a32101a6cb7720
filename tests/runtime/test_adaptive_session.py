import threading

import numpy as np
import pytest

from edgeseg.errors import DeviceError, InputError
from edgeseg.runtime import adaptive_session as module
from edgeseg.runtime.adaptive_session import AdaptiveSession
from edgeseg.runtime.kept_session import keep
from edgeseg.runtime.ladder import Move
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from edgeseg.runtime.watched_session import WatchedSession
from support.videos import NumberedVideo
from support.waiting import threads_of_loops, until

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"


class HandLadder:
    """A ladder whose moves the test gives; one stays due until it is made."""

    def __init__(self, next_faster: str | None = None) -> None:
        self.next_faster = next_faster
        self.due: Move | Exception | None = None
        self.latencies_s: list[float] = []
        self.changes: list[str] = []
        self.left_out: list[str] = []

    def add(self, latency_s: float) -> None:
        self.latencies_s.append(latency_s)

    def decide(self) -> Move | None:
        return self.due

    def changed(self, name: str) -> None:
        self.changes.append(name)
        self.due = None

    def leave_out(self, name: str) -> None:
        self.left_out.append(name)
        self.due = None


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
    session = AdaptiveSession(opened(PLAIN), ladder, opened)
    yield session, ladder, opened
    session.close()
    until(lambda: threads_of_loops() == [])
    assert opened.open_now == []


def step_until_changed(session, ladder, frame, name):
    """Steps of frame 200, as a loop makes them, until the change is made; labels of the last one."""
    ladder.due = Move(name, "because")
    labels = None

    def stepped() -> bool:
        nonlocal labels
        labels = session.step(frame(200))
        return bool(ladder.changes) and ladder.changes[-1] == name

    until(stepped)
    return labels


def test_steps_are_timed_and_those_of_the_session(made, frame):
    session, ladder, _ = made
    assert session.step(frame(1)).shape == (32, 48)
    assert len(ladder.latencies_s) == 1
    assert 0 < ladder.latencies_s[0] < 10
    assert session.configuration.name == PLAIN


def test_another_configuration_takes_over_when_the_ladder_says_so(made, frame):
    session, ladder, _ = made
    step_until_changed(session, ladder, frame, FRAMES)
    assert session.configuration.name == FRAMES
    assert session.events.counts == {"switched": 1}
    (event,) = session.events.last
    assert (event.kind, event.configuration, event.reason) == ("switched", FRAMES, "because")


def test_the_state_of_the_next_configuration_begins_with_its_first_frame(made, frame):
    session, ladder, _ = made
    labels = step_until_changed(session, ladder, frame, FRAMES)
    # The first graph: 255 on the right, as there is no frame before; the blank frames of the warm-up are forgotten.
    assert (labels[0, 0], labels[0, -1]) == (0, 255)
    assert session.step(frame(8))[0, -1] == 200


def test_the_state_of_one_that_ran_before_begins_afresh(made, frame):
    session, ladder, _ = made
    for name in (FRAMES, PLAIN):
        step_until_changed(session, ladder, frame, name)
    assert step_until_changed(session, ladder, frame, FRAMES)[0, -1] == 255


def test_steps_go_on_while_the_next_configuration_is_loaded(bundle, frame):
    ladder, opened, may_load = HandLadder(), Opened(bundle), threading.Event()

    def open_slowly(name):
        assert may_load.wait(10)
        return opened(name)

    with AdaptiveSession(opened(PLAIN), ladder, open_slowly) as session:
        ladder.due = Move(PHASES, "because")
        for _ in range(20):
            session.step(frame(1))
        assert session.configuration.name == PLAIN
        may_load.set()
        step_until_changed(session, ladder, frame, PHASES)


def test_what_the_ladder_fears_most_is_loaded_before_it_is_needed(bundle, frame):
    ladder, opened = HandLadder(next_faster=FRAMES), Opened(bundle)
    with AdaptiveSession(opened(PLAIN), ladder, opened) as session:
        until(lambda: session._standby is not None)
        ladder.due = Move(FRAMES, "because")
        session.step(frame(1))
        assert session.configuration.name == FRAMES


def test_the_one_that_ran_before_stays_loaded(made, frame):
    session, ladder, opened = made
    step_until_changed(session, ladder, frame, FRAMES)
    ladder.due = Move(PLAIN, "because")
    session.step(frame(1))
    assert session.configuration.name == PLAIN
    assert opened.open_now == [PLAIN, FRAMES]


def test_two_sessions_are_loaded_at_most(made, frame):
    session, ladder, opened = made
    for name in (FRAMES, PHASES, PLAIN, FRAMES):
        step_until_changed(session, ladder, frame, name)
    assert sorted(opened.open_now) == sorted([PLAIN, FRAMES])
    assert opened.most_open == 2
    assert session.events.counts["switched"] == 4


def test_the_size_of_the_frames_is_kept(made):
    session, ladder, _ = made
    session.take_frames_of((64, 96), changed=True)
    step_until_changed(session, ladder, lambda value: np.full((64, 96, 3), value, np.uint8), FRAMES)
    assert session.frame_size_hw == (64, 96)


def test_a_size_that_changed_while_the_next_configuration_stood_by_is_taken(bundle):
    ladder, opened = HandLadder(next_faster=FRAMES), Opened(bundle)
    with AdaptiveSession(opened(PLAIN), ladder, opened) as session:
        until(lambda: session._standby is not None)
        session.take_frames_of((64, 96), changed=True)
        ladder.due = Move(FRAMES, "because")
        assert session.step(np.zeros((64, 96, 3), np.uint8)).shape == (32, 48)
        assert session.configuration.name == FRAMES


def test_what_cannot_be_loaded_is_left_out_and_the_loop_goes_on(made, frame):
    session, ladder, _ = made
    ladder.due = Move("huge", "because")

    def stepped() -> bool:
        session.step(frame(1))
        return ladder.left_out == ["huge"]

    until(stepped)
    assert session.configuration.name == PLAIN
    assert session.events.counts == {"left out": 1}
    assert "no memory for huge" in session.events.last[0].reason


def test_a_fault_of_the_other_thread_is_raised_at_the_next_step(bundle, frame):
    def fails(name):
        raise ZeroDivisionError("ours")

    opened = Opened(bundle)
    with AdaptiveSession(opened(PLAIN), HandLadder(next_faster=FRAMES), fails) as session:
        until(lambda: session._failure is not None)
        with pytest.raises(ZeroDivisionError, match="ours"):
            session.step(frame(1))


def test_a_session_that_nobody_took_is_freed_at_the_end(bundle):
    opened = Opened(bundle)
    ladder = HandLadder(next_faster=FRAMES)
    with AdaptiveSession(opened(PLAIN), ladder, opened) as session:
        until(lambda: session._standby is not None)
    assert opened.open_now == []
    assert ladder.changes == []


def test_one_that_is_still_being_loaded_at_the_end_is_freed_when_it_is(bundle, monkeypatch):
    opened, may_load = Opened(bundle), threading.Event()
    monkeypatch.setattr(module, "CLOSE_S", 0.01)

    def open_slowly(name):
        assert may_load.wait(10)
        return opened(name)

    with AdaptiveSession(opened(PLAIN), HandLadder(next_faster=FRAMES), open_slowly):
        pass
    may_load.set()
    until(lambda: threads_of_loops() == [])
    assert opened.open_now == []
    assert opened.most_open == 1


def test_results_tell_which_configuration_they_are_of(bundle):
    ladder, opened = HandLadder(), Opened(bundle)
    with AdaptiveSession(opened(PLAIN), ladder, opened) as session:
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
        assert loop.summary.session_events == {"switched": 1}
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
