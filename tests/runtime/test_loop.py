import asyncio
import threading
import time

import numpy as np
import pytest

from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.errors import DeviceError, InputError, SourceError
from edgeseg.metrics.streaming import streaming_offsets
from edgeseg.runtime.loop import STOP_S, Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame, Source, VideoSource
from edgeseg.runtime.stages import FIRST_STEP_S
from support.sessions import HeldSession
from support.videos import NumberedVideo
from support.waiting import threads_of_loops, until


class ScriptedSource(Source):
    """Gives frame i when the test lets it; raises `error` at its end if there is one."""

    name, fps, size_hw, paced = "scripted", 10.0, (32, 48), True
    is_lost = False

    def __init__(self, frames: int, error: Exception | None = None) -> None:
        self.frames, self.error, self.closed = frames, error, False
        self.allowed = threading.Semaphore(0)
        self._next = 0

    def read(self, stop: threading.Event) -> Frame | None:
        while not self.allowed.acquire(timeout=0.01):
            if stop.is_set():
                return None
        if self._next == self.frames:
            if self.error:
                raise self.error
            return None
        index, self._next = self._next, self._next + 1
        return Frame(index, time.monotonic(), np.full((32, 48, 3), index, np.uint8))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def session(bundle):
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        yield session


def test_every_frame_is_computed_in_order_when_the_source_is_not_paced(session):
    with Loop(session, VideoSource(NumberedVideo(30), paced=False)) as loop:
        seen = [(result.frame_index, int(result.frame_rgb[0, 0, 0])) for result in loop]
    assert seen == [(index, index) for index in range(30)]
    assert loop.summary.frames_dropped == 0
    assert threads_of_loops() == []


def test_the_worker_takes_the_newest_frame_when_several_came_while_it_was_busy(session):
    held, source = HeldSession(session), ScriptedSource(5)
    with Loop(held, source) as loop:
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        source.allowed.release(4)
        until(lambda: loop.summary.frames_captured == 5)
        held.allowed.release(2)
        source.allowed.release()
        indices = [result.frame_index for result in loop]
    assert indices == [0, 4]
    assert loop.summary.frames_dropped == 3


def test_results_tell_times_labels_and_configuration(session):
    with Loop(session, VideoSource(NumberedVideo(3))) as loop:
        results = list(loop)
    result = results[0]
    assert result.labels.shape == (32, 48)
    assert result.configuration == "plain_32x48"
    assert result.age_s == result.published_at - result.captured_at
    assert 0 < result.step_ms <= 1e3 * result.age_s


def test_the_log_says_what_a_consumer_reads_at_each_frame(session):
    source = VideoSource(NumberedVideo(10))
    with Loop(session, source, keep_log=True) as loop:
        loop.wait()
    captured = [source.captured_at_s(index) for index in range(10)]
    read = streaming_offsets(loop.log, captured)
    assert read[0] is None
    assert all(entry is None or entry < index for index, entry in enumerate(read))
    assert read[-1] is not None


def test_no_log_grows_unless_it_is_asked_for(session):
    with Loop(session, VideoSource(NumberedVideo(5), paced=False)) as loop:
        loop.wait()
    assert loop.log == []
    assert loop.summary.results == 5


def test_the_callback_gets_every_result(session):
    seen = []
    source = VideoSource(NumberedVideo(20), paced=False)
    with Loop(session, source, on_result=lambda result: seen.append(result.frame_index)) as loop:
        loop.wait()
    assert seen == list(range(20))


def test_the_failure_is_raised_and_all_stop_when_the_callback_raises(session):
    def fail(result) -> None:
        raise ZeroDivisionError("callback")

    source = ScriptedSource(10)
    source.allowed.release(5)
    with pytest.raises(ZeroDivisionError, match="callback"), Loop(session, source, on_result=fail) as loop:
        loop.wait()
    assert threads_of_loops() == []


def test_the_failure_is_raised_and_all_stop_when_the_engine_fails(tmp_path, graphs):
    made = graphs.write_bundle(tmp_path / "f.edgeseg", [graphs.stateless("fails", graph=graphs.failing_when_bright())])
    source = VideoSource(NumberedVideo(30), paced=False)
    seen = []
    with load(made, configuration="fails_32x48", threads=1) as session:
        with pytest.raises(DeviceError, match="failed on cpu"), Loop(session, source) as loop:
            for result in loop:
                seen.append(result.frame_index)
        assert seen == list(range(len(seen)))
        assert loop.summary.results == 10
    assert threads_of_loops() == []


def test_the_failure_is_raised_and_all_stop_when_the_source_dies(session):
    source = ScriptedSource(3, error=SourceError("camera 0 stopped after frame 2"))
    source.allowed.release(4)
    with pytest.raises(SourceError, match="after frame 2"), Loop(session, source) as loop:
        loop.wait()
    assert threads_of_loops() == []


@pytest.mark.parametrize("compensation", [UNCOMPENSATED, Compensation("late-warp", "dis-ultrafast", 2)])
def test_what_was_captured_is_delivered_before_the_failure_of_the_source_is_raised(session, compensation):
    held, source = HeldSession(session), ScriptedSource(3, error=SourceError("gone"))
    seen = []
    with (
        pytest.raises(SourceError, match="gone"),
        Loop(held, source, compensation=compensation, rate="network") as loop,
    ):
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        source.allowed.release(3)
        until(lambda: loop.has_failed)
        held.allowed.release()
        until(lambda: loop.counts["results"] == 1)
        held.allowed.release()
        for result in loop:
            seen.append(result.source_index)
    assert seen == [0, 2]
    assert (loop.counts["frames_captured"], loop.counts["frames_dropped"], loop.counts["frames_left"]) == (3, 1, 0)


def test_what_is_left_is_counted_when_the_engine_fails(session):
    held, source = HeldSession(session), ScriptedSource(4)
    with pytest.raises(ZeroDivisionError), Loop(held, source) as loop:
        source.allowed.release()
        held.allowed.release()
        until(lambda: loop.counts["results"] == 1)
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        assert held.entered.acquire(timeout=10)
        source.allowed.release()
        until(lambda: loop.counts["frames_captured"] == 3)
        held.failure = ZeroDivisionError()
        held.allowed.release()
        until(lambda: loop.has_failed)
    assert (loop.counts["frames_left"], loop.counts["results_left"]) == (1, 1)
    assert loop.summary.seconds == loop.summary.seconds > 0


def test_the_failure_is_raised_at_the_end_of_the_block_when_nobody_iterated(session):
    source = ScriptedSource(0, error=SourceError("gone"))
    source.allowed.release()
    with pytest.raises(SourceError, match="gone"), Loop(session, source) as loop:
        until(lambda: loop.has_failed)


def test_the_error_of_the_block_is_kept_when_a_stage_failed_too(session):
    source = ScriptedSource(0, error=SourceError("gone"))
    source.allowed.release()
    with pytest.raises(KeyError, match="mine"), Loop(session, source) as loop:
        until(lambda: loop.has_failed)
        raise KeyError("mine")


def test_the_loop_stops_soon_when_the_source_is_slow(session):
    source = VideoSource(NumberedVideo(100), fps=0.01)
    with Loop(session, source) as loop:
        next(iter(loop))
        begin = time.monotonic()
    assert time.monotonic() - begin < 2.0
    assert threads_of_loops() == []


def test_stop_may_be_called_from_the_callback(session):
    loop = Loop(session, VideoSource(NumberedVideo(100), paced=False), on_result=lambda result: loop.stop())
    with loop:
        loop.wait()
    assert loop.summary.results == 1


def test_a_slow_reader_loses_the_oldest_results_only_when_the_source_is_paced(session):
    source = ScriptedSource(12)
    with Loop(session, source) as loop:
        for count in range(1, 13):
            source.allowed.release()
            until(lambda count=count: loop.summary.results == count)
        source.allowed.release()
        indices = [result.frame_index for result in loop]
    assert indices == [8, 9, 10, 11]
    assert loop.summary.results_dropped == 8


def test_the_source_is_closed_only_when_the_loop_opened_it(session):
    source = ScriptedSource(0)
    source.allowed.release()
    with Loop(session, source) as loop:
        loop.wait()
    assert not source.closed


def test_the_session_takes_the_size_of_the_source(bundle):
    video = NumberedVideo(2)
    video.size_hw = (64, 96)
    video.frame_rgb = lambda index: np.full((64, 96, 3), index, np.uint8)
    with load(bundle, configuration="plain_32x48") as session:
        with Loop(session, VideoSource(video, paced=False)) as loop:
            assert [result.labels.shape for result in loop] == [(32, 48)] * 2
        assert session.frame_size_hw == (64, 96)


def test_a_source_of_another_size_is_refused_when_the_session_was_given_one(bundle):
    words = r"frames are 32 x 48 \| the session was loaded for 16 x 16"
    with (
        load(bundle, configuration="plain_32x48", frame_size_hw=(16, 16)) as session,
        pytest.raises(InputError, match=words),
    ):
        Loop(session, VideoSource(NumberedVideo(2)))


def test_a_loop_runs_once(session):
    with Loop(session, VideoSource(NumberedVideo(1))) as loop:
        loop.wait()
        with pytest.raises(InputError, match="runs once"):
            loop.start()


def test_a_loop_that_was_not_started_is_refused_rather_than_waited_for(session):
    async def first(loop: Loop) -> object:
        return await anext(aiter(loop))

    loop = Loop(session, VideoSource(NumberedVideo(1)))
    with pytest.raises(InputError, match="was not started"):
        next(iter(loop))
    with pytest.raises(InputError, match="was not started"):
        asyncio.run(first(loop))


def test_slot_waits_for_room_when_told_to():
    stop = threading.Event()
    slot: LatestSlot[int] = LatestSlot(stop)
    slot.put(1)
    threading.Timer(0.05, slot.take).start()
    assert slot.put(2, wait=True)
    assert (slot.take(), slot.dropped) == (2, 0)


def test_slot_counts_what_is_left_when_it_was_stopped():
    stop = threading.Event()
    slot: LatestSlot[int] = LatestSlot(stop)
    slot.put(1)
    assert slot.left == 0
    threading.Timer(0.05, stop.set).start()
    assert not slot.put(2, wait=True)
    assert (slot.left, slot.dropped) == (2, 0)


def test_slot_drops_what_the_new_item_makes_needless():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=9)
    for item in (1, 2, 3):
        slot.put(item)
    slot.put(4, replaces=lambda held: held != 2)
    assert (slot.take(), slot.take(), slot.dropped) == (2, 4, 2)


def test_slot_notes_an_item_before_the_next_one_can_be_put():
    slot: LatestSlot[int] = LatestSlot(threading.Event())
    slot.put(1)
    thread = threading.Thread(target=slot.put, args=(2,))

    def note(item: int) -> None:
        thread.start()
        time.sleep(0.05)
        assert thread.is_alive()

    assert slot.take(note) == 1
    thread.join()
    assert (slot.take(), slot.dropped) == (2, 0)


def test_slot_gives_what_is_left_after_it_was_closed():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=2)
    slot.put(1)
    slot.close()
    assert (slot.take(), slot.take()) == (1, None)


def test_slot_drops_what_is_not_accepted_and_waits_for_the_next_one():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=9)
    for item in (1, 2, 3):
        slot.put(item)
    noted = []
    assert slot.take(noted.append, accepts=lambda item: item > 2) == 3
    assert (noted, slot.dropped) == ([3], 2)


def test_the_worker_keeps_to_the_schedule(session):
    with Loop(session, VideoSource(NumberedVideo(10), paced=False), schedule="every-n-th:4") as loop:
        indices = [result.frame_index for result in loop]
    assert indices == [0, 4, 8]
    assert loop.summary.frames_dropped == 7
    assert loop.summary.schedule == "every-n-th:4"


@pytest.mark.parametrize(("rate", "warnings"), [(10, 0), (10.5, 0), (50, 1)])
def test_a_rate_that_the_source_does_not_have_is_told(session, caplog, rate, warnings):
    Loop(session, ScriptedSource(1), schedule=f"fixed-rate:{rate}")
    assert [line.partition(" |")[0] for line in caplog.messages] == [
        f"the schedule fixed-rate:{rate} asks for more than the 10 frames/s of scripted"
    ] * warnings


class SkippingFrameOne:
    """A schedule, and its rule, that leaves frame 1 and keeps what it was asked and told."""

    name = "skipping"

    def __init__(self) -> None:
        self.asked: list[tuple[int, float, float]] = []
        self.latencies_s: list[float] = []

    def is_faster_than(self, fps: float) -> bool:
        return False

    def start_rule(self, fps: float) -> "SkippingFrameOne":
        assert fps == ScriptedSource.fps
        return self

    def takes(self, index: int, captured_at_s: float, free_at_s: float) -> bool:
        self.asked.append((index, captured_at_s, free_at_s))
        return index != 1

    def finished(self, latency_s: float) -> None:
        self.latencies_s.append(latency_s)


def test_the_worker_waits_for_the_next_frame_when_the_schedule_leaves_one(session):
    held, source, schedule = HeldSession(session), ScriptedSource(3), SkippingFrameOne()
    with Loop(held, source, schedule=schedule) as loop:
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        source.allowed.release()
        until(lambda: loop.summary.frames_captured == 2)
        held.allowed.release(2)
        until(lambda: len(schedule.asked) == 2)
        source.allowed.release(2)
        results = list(loop)
    assert [result.frame_index for result in results] == [0, 2]
    first, left, waited_for = schedule.asked
    assert first[2] < first[1]
    # Free again only after it came, and before the one that it waited for.
    assert left[1] < left[2]
    assert waited_for[2] == left[2] < waited_for[1]
    assert schedule.latencies_s == [result.step_ms / 1e3 for result in results]
    assert loop.summary.frames_dropped == 1


def test_the_loop_waits_for_a_lost_camera_only_when_no_step_is_under_way(session):
    held, source = HeldSession(session), ScriptedSource(1)
    with Loop(held, source) as loop:
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        assert not loop.waits_for_camera
        source.is_lost = True
        assert not loop.waits_for_camera
        held.allowed.release()
        until(lambda: loop.waits_for_camera)
        assert loop.summary.camera_is_lost
        source.allowed.release()


class Recorded(Source):
    """Frames captured at the times given, of the sizes given; each is given when the one before was stepped."""

    name, fps, size_hw, paced = "recorded", 10.0, (32, 48), True

    def __init__(self, captured_at_s: list[float], sizes_hw: dict[int, tuple[int, int]]) -> None:
        self._captured_at_s, self._sizes_hw = captured_at_s, sizes_hw
        self.allowed = threading.Semaphore(1)
        self._next = 0

    def read(self, stop: threading.Event) -> Frame | None:
        assert self.allowed.acquire(timeout=10)
        if self._next == len(self._captured_at_s):
            return None
        index, self._next = self._next, self._next + 1
        rgb = np.full((*self._sizes_hw.get(index, self.size_hw), 3), 100, np.uint8)
        return Frame(index, self._captured_at_s[index], rgb)


@pytest.mark.parametrize(
    ("captured_at_s", "sizes_hw", "reason"),
    [
        ([0.0, 0.1, 0.2, 5.2, 5.3], {}, "5 s since the frame before, at frame 3"),
        ([9.0, 9.1, 9.2, 4.2, 4.3], {}, "capture times went back by 5 s, at frame 3"),
        (
            [0.0, 0.1, 0.2, 0.3, 0.4],
            {3: (64, 96), 4: (64, 96)},
            "pictures of 64x96 instead of 32x48, at frame 3",
        ),
    ],
    ids=["after a gap", "when a clip begins again", "at another size"],
)
def test_the_state_of_a_network_begins_anew(bundle, captured_at_s, sizes_hw, reason):
    source, roles = Recorded(captured_at_s, sizes_hw), []

    def note(result) -> None:
        # The first graph gives 0 in the left half, each later step 20 and the steps since.
        roles.append(int(result.labels[0, 0]))
        source.allowed.release()

    with (
        load(bundle, configuration="frames_32x48", threads=1) as session,
        Loop(session, source, on_result=note) as loop,
    ):
        loop.wait()
        summary = loop.summary
    assert roles == [0, 21, 22, 0, 21]
    assert summary.session_events == {"reset": 1}
    assert summary.last_events[0].reason == reason


def test_the_state_of_a_network_is_kept_when_no_gap_is_too_long(bundle):
    source, roles = Recorded([0.0, 0.1, 60.0], {}), []

    def note(result) -> None:
        roles.append(int(result.labels[0, 0]))
        source.allowed.release()

    with (
        load(bundle, configuration="frames_32x48", threads=1) as session,
        Loop(session, source, on_result=note, gap_s=float("inf")) as loop,
    ):
        loop.wait()
    assert roles == [0, 21, 22]
    assert loop.summary.session_events == {}


def test_a_schedule_by_time_goes_on_when_a_clip_begins_again(session):
    source = Recorded([9.0, 9.1, 9.2, 4.2, 4.3, 4.4], {})
    source.paced = False
    source.allowed.release(10)
    with Loop(session, source, schedule="fixed-rate:5") as loop:
        assert [result.frame_index for result in loop] == [0, 2, 3, 5]


def test_a_network_without_state_has_nothing_to_forget(session):
    source = Recorded([0.0, 0.1, 9.0], {})
    with Loop(session, source, on_result=lambda result: source.allowed.release()) as loop:
        loop.wait()
    assert loop.summary.results == 3
    assert loop.summary.session_events == {}


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
        monkeypatch.setattr("edgeseg.runtime.loop.STOP_S", 0.1)

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
    monkeypatch.setattr("edgeseg.runtime.loop.STOP_S", 0.1)
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
    monkeypatch.setattr("edgeseg.runtime.loop.STOP_S", 0.1)
    is_hanging, let_go = threading.Event(), threading.Event()
    source = ScriptedSource(9)
    source.allowed.release(1)
    loop = Loop(session, source, compensation=Compensation("late-warp", "dis-ultrafast", 2))

    def hang(*_) -> None:
        is_hanging.set()
        assert let_go.wait(30)

    monkeypatch.setattr(loop._warp, "_moved", hang)
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
    monkeypatch.setattr("edgeseg.runtime.loop.STOP_S", 0.05)
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
