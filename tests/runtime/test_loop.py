import asyncio
import time

import numpy as np
import pytest

from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.errors import DeviceError, InputError, SourceError
from edgeseg.metrics.streaming import streaming_offsets
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from support.sessions import HeldSession
from support.sources import ScriptedSource
from support.videos import NumberedVideo
from support.waiting import threads_of_loops, until


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
