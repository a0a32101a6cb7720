"""The loop starts steps when the schedule says so."""

import pytest

from edgeseg.runtime.loop import Loop
from edgeseg.runtime.source import VideoSource
from support.sessions import HeldSession
from support.sources import ScriptedSource
from support.videos import NumberedVideo
from support.waiting import until


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
