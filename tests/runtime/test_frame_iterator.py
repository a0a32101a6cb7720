import threading
import time

import numpy as np
import pytest

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.frame_iterator import IteratorSource
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source_opening import open_source


def frame(level: int) -> np.ndarray:
    return np.full((32, 48, 3), level, np.uint8)


def test_the_loop_takes_any_iterator_of_times_and_frames(bundle):
    times = [5.0 + 0.1 * index for index in range(4)]
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        # Not paced, so that every frame is computed.
        source = open_source(((at, frame(index)) for index, at in enumerate(times)), paced=False)
        with Loop(session, source) as loop:
            seen = [(result.frame_index, result.captured_at, int(result.frame_rgb[0, 0, 0])) for result in loop]
    assert seen == [(index, at, index) for index, at in enumerate(times)]


def test_the_loop_opens_and_closes_a_generator_of_live_frames(bundle):
    closed = []

    def frames():
        try:
            for index in range(1000):
                yield time.monotonic(), frame(index % 256)
        finally:
            closed.append(True)

    with load(bundle, configuration="plain_32x48", threads=1) as session, Loop(session, frames(), fps=100) as loop:
        assert next(iter(loop)).labels.shape == (32, 48)
    assert closed == [True]


def at(*times: float, begin_s: float = 1.0):
    """Frames of these times, on a clock that shows a second."""
    return IteratorSource(((begin_s + after_s, frame(0)) for after_s in times), clock=lambda: 1.0)


@pytest.mark.parametrize(
    ("times", "fps"),
    [((0, 0.05), 20.0), ((0, 0.1, 0.2, 0.3, 0.4, 9.0), 10.0), ((0, 0.0001, 0.0501, 0.1001, 0.1501), 20.0)],
    ids=["two", "more than needed", "a burst"],
)
def test_size_and_rate_are_those_of_the_first_frames(times, fps):
    source = at(*times)
    assert (source.size_hw, source.fps) == ((32, 48), pytest.approx(fps))
    stop = threading.Event()
    assert [source.read(stop).captured_at_s for _ in times] == [1.0 + each for each in times]


def test_only_one_frame_is_taken_at_once_when_the_rate_is_given():
    begin_s = time.monotonic()
    frames = iter([(begin_s, frame(0)), (begin_s + 0.05, frame(1))])
    assert open_source(frames, fps=15).fps == 15
    assert next(frames)[0] == begin_s + 0.05


@pytest.mark.parametrize("begin_s", [1_795_261_087.0, -9.0], ids=["wall clock", "since it began"])
def test_times_of_another_clock_are_refused(begin_s):
    with pytest.raises(InputError, match=r"another clock than the loop's: give time\.monotonic"):
        at(0, 0.1, begin_s=begin_s)


def test_the_clock_of_the_loop_is_that_of_the_frames(bundle):
    def frames():
        for index in range(3):
            yield 0.1 * index, frame(index)

    with (
        load(bundle, configuration="plain_32x48", threads=1) as session,
        Loop(session, frames(), clock=lambda: 0.5) as loop,
    ):
        assert next(iter(loop)).captured_at < 0.5


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([frame(0)], "frame 0 of an iterator is a ndarray"),
        ([(0.0, frame(0)), (0.1, frame(0).astype(float))], r"frame 1 .* is \(0\.1, float64 \(32, 48, 3\)\)"),
        ([(0.001 * ms, frame(0)) for ms in (0, 0.1, 0.2, 9.0, 9.1)], "first 5 times lie 0.1 ms apart tells no"),
        ([(0.0, None)], r"\(0\.0, NoneType\)"),
        ([(float("nan"), frame(0))], r"\(nan, uint8"),
        ([(1.0, frame(0)), (1.0, frame(0))], "tells no frame rate"),
        ([(1.0, frame(0))], "tells no frame rate"),
    ],
)  # fmt: skip
def test_an_item_that_is_no_time_and_frame_is_refused(items, words):
    with pytest.raises(InputError, match=words):
        open_source(iter(items), paced=False)


def test_an_iterator_without_frames_is_refused():
    with pytest.raises(SourceError, match="has no frames"):
        open_source(iter(()))
