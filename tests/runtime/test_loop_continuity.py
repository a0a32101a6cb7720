"""Where a video breaks off, what the loop remembers of it is forgotten."""

import threading

import numpy as np
import pytest

from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import Frame, Source


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
