"""Steps beside the camera's flow: which frames get a flow while a step of known length runs, and what breaks it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgeseg.config import ALL_COMPENSATIONS, Compensation
from edgeseg.errors import InputError
from edgeseg.runtime.clip import Clip, noise_frames
from edgeseg.runtime.moved_steps import MovedSteps

SIZE_HW = (64, 96)
PERIOD_S = 0.02


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class WatchedClip(Clip):
    """Remembers which frames were asked for."""

    def __init__(self) -> None:
        super().__init__(noise_frames(SIZE_HW), SIZE_HW)
        self.asked: list[int] = []

    def frame_rgb(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return super().frame_rgb(index)

    def wait_for(self, index: int) -> None:
        deadline = time.monotonic() + 10
        while index not in self.asked:
            assert time.monotonic() < deadline, f"frame {index} was not asked for, only {self.asked}"
            time.sleep(0.001)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def labels(frame_rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame_rgb[..., 0] // 64)


def test_every_frame_that_comes_during_a_step_gets_a_flow(thread):
    clock, clip = Clock(), WatchedClip()

    def step(frame_rgb: np.ndarray) -> np.ndarray:
        for number in (1, 2, 3):
            clock.now_s = (number + 0.5) * PERIOD_S
            clip.wait_for(number)
        return labels(frame_rgb)

    moved = MovedSteps(Compensation(), PERIOD_S, clock).run(step, clip, thread)
    assert clip.asked == [0, 0, 1, 2, 3]
    assert len(moved.flow_s) == 4
    assert moved.latency_s == pytest.approx(3.5 * PERIOD_S)


def test_of_several_frames_that_wait_the_newest_alone_gets_a_flow(thread):
    clock, clip = Clock(), WatchedClip()

    def step(frame_rgb: np.ndarray) -> np.ndarray:
        clip.wait_for(0)
        clock.now_s = 4.5 * PERIOD_S
        return labels(frame_rgb)

    assert len(MovedSteps(Compensation(), PERIOD_S, clock).run(step, clip, thread).flow_s) == 2
    assert clip.asked == [0, 0, 4]


def test_the_next_step_begins_with_the_frame_after_the_newest(thread):
    clock, clip = Clock(), WatchedClip()
    steps = MovedSteps(Compensation(), PERIOD_S, clock)

    def step(frame_rgb: np.ndarray) -> np.ndarray:
        clock.now_s = 2.5 * PERIOD_S
        return labels(frame_rgb)

    steps.run(step, clip, thread)
    steps.run(labels, clip, thread)
    assert clip.asked == [0, 0, 2, 3, 3]


@pytest.mark.parametrize("compensation", ALL_COMPENSATIONS[1:], ids=lambda entry: entry.name)
def test_labels_are_moved_at_every_step_but_the_first(thread, compensation):
    clip, steps = Clip(noise_frames(SIZE_HW), SIZE_HW), MovedSteps(compensation, PERIOD_S, Clock())
    moved = [steps.run(labels, clip, thread) for _ in range(20)][1:]
    assert {entry.fallback for entry in moved} == {None}
    if compensation.mode != "late-warp":  # which has nowhere to move labels of the newest frame to
        assert all(entry.moved_px > 0.5 for entry in moved)


def test_an_error_of_the_flow_is_raised_in_the_caller(thread):
    clip = Clip([np.zeros((*SIZE_HW, 3), np.float32)], SIZE_HW)
    with pytest.raises(InputError, match="a frame is uint8"):
        MovedSteps(Compensation(), PERIOD_S, Clock()).run(lambda frame: np.zeros((8, 8), np.uint8), clip, thread)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_thread_is_free_again_when_a_step_breaks(thread, error):
    def step(frame_rgb: np.ndarray) -> np.ndarray:
        raise error

    with pytest.raises(error):
        MovedSteps(Compensation(), 1e6, Clock()).run(step, Clip(noise_frames(SIZE_HW), SIZE_HW), thread)
    assert thread.submit(lambda: "free").result(timeout=10) == "free"


def test_the_thread_is_free_again_when_ctrl_c_comes_before_the_step(thread):
    class Interrupted:
        def submit(self, *work):
            thread.submit(*work)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MovedSteps(Compensation(), 1e6, Clock()).run(np.array, Clip(noise_frames(SIZE_HW), SIZE_HW), Interrupted())
    assert thread.submit(lambda: "free").result(timeout=10) == "free"
