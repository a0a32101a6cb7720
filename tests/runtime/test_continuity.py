import math

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.continuity import Stretches
from edgeseg.runtime.source import Frame


def frame(captured_at_s: float, size_hw: tuple[int, int] = (32, 48)) -> Frame:
    return Frame(0, captured_at_s, np.zeros((*size_hw, 3), np.uint8))


def stretches_of(stretches: Stretches, *captured_at_s: float) -> list[int]:
    return [stretches.numbered(frame(at_s)).stretch for at_s in captured_at_s]


def reasons_of(stretches: Stretches, *captured_at_s: float) -> list[str | None]:
    """Every frame is captured and stepped."""
    return [stretches.broken_before(stretches.numbered(frame(at_s))) for at_s in captured_at_s]


@pytest.mark.parametrize(
    ("captured_at_s", "expected"),
    [
        ((0.0, 0.1, 0.2, 1.2), [0, 0, 0, 0]),
        ((0.0, 0.1, 1.3, 1.4, 9.0), [0, 0, 1, 1, 2]),
        ((5.0, 5.1, 4.0, 4.1), [0, 0, 1, 1]),
        ((5.0, 5.0, 4.9, 5.1), [0, 0, 0, 0]),
    ],
    ids=["no longer than a second", "gaps", "begins again", "a clock that stands or trembles"],
)
def test_a_stretch_ends_at_a_gap_and_where_times_go_back(captured_at_s, expected):
    assert stretches_of(Stretches(10.0, paced=True), *captured_at_s) == expected


def test_a_slow_camera_is_given_three_of_its_periods():
    assert stretches_of(Stretches(0.5, paced=True), 0.0, 2.0, 7.9, 14.0) == [0, 0, 0, 1]


def test_a_gap_is_as_long_as_one_says():
    assert stretches_of(Stretches(10.0, paced=True, gap_s=0.5), 0.0, 0.4, 1.0) == [0, 0, 1]
    assert stretches_of(Stretches(10.0, paced=True, gap_s=math.inf), 0.0, 99.0) == [0, 0]
    with pytest.raises(InputError, match="positive, in seconds"):
        Stretches(10.0, paced=True, gap_s=0.0)


def test_frames_that_wait_to_be_asked_for_have_no_gaps():
    assert stretches_of(Stretches(10.0, paced=False), 0.0, 99.0, 0.0) == [0, 0, 1]


def test_a_stretch_ends_at_another_size():
    stretches = Stretches(10.0, paced=True)
    sizes = [(32, 48), (32, 48), (64, 48), (64, 48)]
    numbered = [stretches.numbered(frame(index / 10, size_hw)) for index, size_hw in enumerate(sizes)]
    assert [each.stretch for each in numbered] == [0, 0, 1, 1]
    assert [stretches.broken_before(each) for each in numbered] == [
        None, None, "pictures of 64x48 instead of 32x48", None
    ]  # fmt: skip


def test_the_state_is_void_at_the_first_step_of_a_stretch_alone():
    assert reasons_of(Stretches(10.0, paced=True), 0.0, 0.1, 5.3, 5.4, 2.4) == [
        None, None, "5.2 s since the frame before", None, "capture times went back by 3 s"
    ]  # fmt: skip


def test_the_end_of_a_stretch_is_seen_when_its_first_frames_were_dropped():
    stretches = Stretches(10.0, paced=True)
    first, _, _, after = (stretches.numbered(frame(at_s)) for at_s in (0.0, 3.0, 3.1, 3.2))
    assert stretches.broken_before(first) is None
    assert stretches.broken_before(after) == "3.2 s since the frame before"


def test_a_step_that_hung_leaves_a_gap_and_a_slow_network_none():
    slow, hung = Stretches(10.0, paced=True), Stretches(10.0, paced=True)
    frames = [frame(index / 10) for index in range(200)]
    assert not any(slow.broken_before(each) for each in frames[::20])
    taken = [*frames[:10], frames[40], frames[41]]
    assert [hung.broken_before(each) for each in taken][-2:] == ["3.1 s since the frame before", None]
