import time

import numpy as np
import pytest

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session import load
from edgeseg.runtime.source import open_source


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

    with load(bundle, configuration="plain_32x48", threads=1) as session, Loop(session, frames()) as loop:
        assert next(iter(loop)).labels.shape == (32, 48)
    assert closed == [True]


def test_size_and_rate_are_those_of_the_first_frames():
    source = open_source(iter([(1.0, frame(0)), (1.05, frame(1))]))
    assert (source.size_hw, source.fps) == ((32, 48), pytest.approx(20.0))


def test_only_one_frame_is_taken_at_once_when_the_rate_is_given():
    frames = iter([(1.0, frame(0)), (1.05, frame(1))])
    assert open_source(frames, fps=15).fps == 15
    assert next(frames)[0] == 1.05


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([frame(0)], "frame 0 of an iterator is a ndarray"),
        ([(0.0, frame(0)), (0.1, frame(0).astype(float))], r"frame 1 .* is \(0\.1, float64 \(32, 48, 3\)\)"),
        ([(0.0, None)], r"\(0\.0, NoneType\)"),
        ([(float("nan"), frame(0))], r"\(nan, uint8"),
        ([(1.0, frame(0)), (1.0, frame(0))], "tells no frame rate"),
        ([(1.0, frame(0))], "tells no frame rate"),
    ],
)  # fmt: skip
def test_an_item_that_is_no_time_and_frame_is_refused(items, words):
    with pytest.raises(InputError, match=words):
        open_source(iter(items))


def test_an_iterator_without_frames_is_refused():
    with pytest.raises(SourceError, match="has no frames"):
        open_source(iter(()))
