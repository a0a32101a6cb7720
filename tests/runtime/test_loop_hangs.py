"""What hangs behind the loop is named, and left behind when it ends; what is only slow is waited for."""

import threading
import time

import pytest

from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.errors import DeviceError, InputError
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import Frame
from edgeseg.runtime.stage_pipeline import STOP_S
from edgeseg.runtime.stages import FIRST_STEP_S
from support.sessions import HeldSession
from support.sources import ScriptedSource
from support.waiting import threads_of_loops, until


class HangingSource(ScriptedSource):
    """Hangs in its driver after the frames that were allowed, whoever wants to stop, until it is let go."""

    def __init__(self) -> None:
        super().__init__(9)
        self.is_hanging, self.let_go = threading.Event(), threading.Event()

    def read(self, stop: threading.Event) -> Frame | None:
        if not self.allowed.acquire(blocking=False):
            self.is_hanging.set()
            assert self.let_go.wait(30)
            return None
        self.allowed.release()
        return super().read(stop)


def test_a_source_that_hangs_is_left_behind_within_two_seconds(session, caplog):
    assert STOP_S < 2
    source = HangingSource()
    source.allowed.release(1)
    with Loop(session, source) as loop:
        assert next(iter(loop)).frame_index == 0
        assert source.is_hanging.wait(10)
        begin_s = time.monotonic()
    assert time.monotonic() - begin_s < 10
    assert "scripted does not answer | its thread was left behind" in caplog.text
    assert threads_of_loops() == ["edgeseg-capture"]
    source.let_go.set()
    until(lambda: threads_of_loops() == [])


class HangingStep:
    """A real session on one thread whose step hangs until it is let go."""

    def __init__(self, bundle, monkeypatch) -> None:
        self.session = load(bundle, configuration="plain_32x48", threads=1)
        self.is_hanging, self.let_go = threading.Event(), threading.Event()
        infer = self.session._runner.infer

        def hang() -> None:
            self.is_hanging.set()
            assert self.let_go.wait(30)
            infer()

        monkeypatch.setattr(self.session._runner, "infer", hang)
        monkeypatch.setattr("edgeseg.runtime.stage_pipeline.STOP_S", 0.1)

    def end(self) -> None:
        """Let it go, and close it."""
        self.let_go.set()
        until(lambda: threads_of_loops() == [])
        self.session.close()
        assert not self.session._runner.is_active


def test_a_step_that_hangs_is_an_error_and_its_session_is_left_to_it(bundle, caplog, monkeypatch):
    monkeypatch.setattr("edgeseg.runtime.stages.FIRST_STEP_S", 0.1)
    source, hanging = ScriptedSource(9), HangingStep(bundle, monkeypatch)
    source.allowed.release(1)
    with (
        pytest.raises(DeviceError, match=r"a step of plain_32x48 does not return \| its thread was left behind"),
        Loop(hanging.session, source),
    ):
        assert hanging.is_hanging.wait(10)
    hanging.session.close()
    assert "its session was left behind" in caplog.text
    assert hanging.session._runner.is_active
    hanging.end()


def test_a_step_is_left_behind_without_an_error_when_the_loop_is_to_end_at_once(bundle, caplog, monkeypatch):
    source, hanging = ScriptedSource(9), HangingStep(bundle, monkeypatch)
    source.allowed.release(1)
    with Loop(hanging.session, source) as loop:
        assert hanging.is_hanging.wait(10)
        loop.stop(at_once=True)
    assert [line for line in caplog.messages if "does not return | its thread was left behind" in line]
    hanging.end()


@pytest.mark.parametrize("compensation", [UNCOMPENSATED, Compensation("late-warp", "dis-ultrafast", 2)])
def test_a_callback_that_hangs_is_named(session, monkeypatch, compensation):
    monkeypatch.setattr("edgeseg.runtime.stage_pipeline.STOP_S", 0.1)
    is_hanging, let_go = threading.Event(), threading.Event()

    def hang(result) -> None:
        is_hanging.set()
        assert let_go.wait(30)

    source = ScriptedSource(9)
    source.allowed.release(1)
    with (
        pytest.raises(InputError, match="on_result does not return"),
        Loop(session, source, on_result=hang, compensation=compensation),
    ):
        assert is_hanging.wait(10)
    let_go.set()
    until(lambda: threads_of_loops() == [])


def test_moving_labels_that_hangs_is_named(session, monkeypatch):
    monkeypatch.setattr("edgeseg.runtime.stage_pipeline.STOP_S", 0.1)
    is_hanging, let_go = threading.Event(), threading.Event()
    source = ScriptedSource(9)
    source.allowed.release(1)
    loop = Loop(session, source, compensation=Compensation("late-warp", "dis-ultrafast", 2))

    def hang(*_) -> None:
        is_hanging.set()
        assert let_go.wait(30)

    monkeypatch.setattr(loop._pipeline._warp, "_moved", hang)
    with pytest.raises(DeviceError, match="moving labels does not return"), loop:
        assert is_hanging.wait(10)
    let_go.set()
    until(lambda: threads_of_loops() == [])


def test_a_step_is_left_behind_when_an_error_leaves_the_block(bundle, monkeypatch):
    source, hanging = ScriptedSource(9), HangingStep(bundle, monkeypatch)
    source.allowed.release(1)
    begin_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Loop(hanging.session, source):
        assert hanging.is_hanging.wait(10)
        raise KeyboardInterrupt
    assert time.monotonic() - begin_s < FIRST_STEP_S
    hanging.end()


def test_a_slow_step_is_waited_for(session, monkeypatch):
    monkeypatch.setattr("edgeseg.runtime.stage_pipeline.STOP_S", 0.05)
    held, source = HeldSession(session), ScriptedSource(2)
    source.allowed.release(1)
    with Loop(held, source) as loop:
        assert held.entered.acquire(timeout=10)
        time.sleep(0.3)
        held.allowed.release()
        next(iter(loop))
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        threading.Timer(0.3, held.allowed.release).start()
    assert loop.summary.results == 2
