import numpy as np
import pytest

from edgeseg.runtime.clip import Clip, noise_frames


def still(value: int) -> np.ndarray:
    return np.full((8, 12, 3), value, np.uint8)


def test_noise_frames_differ_and_repeat():
    first, again = noise_frames((40, 60)), noise_frames((40, 60))
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    assert (first[0] != first[1]).mean() > 0.9
    assert first[0].std() > 10


@pytest.mark.parametrize(("size_hw", "step"), [((40, 60), 1), ((360, 480), 3)])
def test_noise_frames_show_one_picture_that_moves_a_few_pixels_a_frame(size_hw, step):
    before, after = noise_frames(size_hw)[:2]
    assert np.array_equal(before[step:, 2 * step :], after[:-step, : -2 * step])


def test_a_clip_is_played_to_and_fro():
    clip = Clip([still(value) for value in (10, 20, 30)], (8, 12))
    assert [clip.frame_rgb(index)[0, 0, 0] for index in range(8)] == [10, 20, 30, 20, 10, 20, 30, 20]


def test_a_clip_of_one_frame_stands_still():
    clip = Clip([still(10)], (8, 12))
    assert [clip.frame_rgb(index)[0, 0, 0] for index in range(3)] == [10, 10, 10]


def test_frames_get_the_size_that_is_asked_for():
    assert Clip([still(10), still(20)], (4, 6)).frame_rgb(1).shape == (4, 6, 3)
