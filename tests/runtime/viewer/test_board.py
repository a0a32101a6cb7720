"""What the loop tells the server through shared memory: figures always, pictures when they are wanted."""

import logging
import mmap
import threading
from dataclasses import replace

import numpy as np
import pytest

from edgeseg.runtime.result import Result
from edgeseg.runtime.viewer import answers
from edgeseg.runtime.viewer.board import MEMORY_BYTES, POINTS, Board
from edgeseg.runtime.viewer.board_reader import BoardReader


def made(index=0, *, value=0, step_ms=20.0, size_hw=(4, 6)):
    frame_rgb = np.full((*size_hw, 3), value, np.uint8)
    labels = np.full((2, 3), value, np.uint8)
    return Result(index, 10.0, 10.5, step_ms, labels, frame_rgb, "plain", index, 10.0, 10.0)


class Pair:
    """Both sides of one memory, with one clock that the test turns."""

    def __init__(self):
        self.now, self.told, self.facts = 100.0, 0, {"source": "street"}
        memory = mmap.mmap(-1, MEMORY_BYTES)

        def tell():
            self.told += 1

        def number(offered):
            return {"number": offered.number}

        self.board = Board(memory, lambda: self.facts, number, tell, clock=lambda: self.now)
        self.reader = BoardReader(memory, clock=lambda: self.now)


@pytest.fixture
def pair():
    return Pair()


def test_nothing_is_copied_when_nobody_looks(pair, monkeypatch):
    monkeypatch.setattr(np, "copyto", lambda *arguments: pytest.fail("something was copied"))
    for index in range(3):
        pair.board.offer(made(index))
    pair.board.hand_over()
    assert (pair.reader.figures().number, pair.told) == (3, 0)


def test_the_next_result_is_copied_once_when_it_is_wanted(pair):
    pair.reader.want_picture()
    assert not pair.reader.is_picture_there
    for index in range(1, 4):
        pair.board.offer(made(index, value=index))
    shown = pair.reader.picture()
    assert (pair.reader.is_picture_there, pair.told, shown.number) == (True, 1, 1)
    assert shown.facts == {"number": 1}
    assert (shown.frame_rgb.shape, shown.labels.tolist()) == ((4, 6, 3), [[1] * 3] * 2)
    assert (shown.frame_rgb == 1).all()


def test_the_last_result_is_given_when_none_comes_and_not_twice(pair):
    pair.board.offer(made(value=1))
    pair.board.offer(made(value=2))
    pair.reader.want_picture()
    pair.board.hand_over()
    assert (pair.reader.picture().number, pair.told) == (2, 1)
    pair.reader.want_picture()
    pair.board.hand_over()
    assert (pair.reader.is_picture_there, pair.told) == (False, 1)


def test_a_new_server_gets_what_the_one_before_had(pair):
    pair.board.offer(made())
    for _ in range(2):
        pair.board.begin_anew()
        pair.reader.want_picture()
        pair.board.hand_over()
        assert pair.reader.is_picture_there
        assert pair.reader.picture().number == 1


def test_frames_of_another_size_and_layout_are_copied_as_they_are(pair):
    columns = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    for frame_rgb in (columns, columns[:, ::-1], columns[::2, ::3]):
        pair.reader.want_picture()
        pair.board.offer(replace(made(), frame_rgb=frame_rgb))
        np.testing.assert_array_equal(pair.reader.picture().frame_rgb, frame_rgb)


def test_a_frame_that_is_too_large_is_not_shown_and_said_once(pair, caplog):
    huge = np.broadcast_to(np.uint8(0), (9000, 9000, 3))
    pair.reader.want_picture()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            pair.board.offer(replace(made(), frame_rgb=huge))
    assert [record.getMessage()[:36] for record in caplog.records] == ["a frame of (9000, 9000, 3) is too la"]
    pair.board.offer(made())
    assert pair.reader.picture().number == 3


def health_of(pair):
    told = answers.health(pair.reader, 5.0)
    return tuple(told[name] for name in ("status", "seconds_since_new_labels", "seconds_since_result", "results"))


def test_health_is_told_by_the_time_since_the_last_result(pair):
    assert health_of(pair) == ("starting", None, None, 0)
    pair.board.offer(made())
    pair.now += 4.9
    assert health_of(pair) == ("ok", 4.9, 4.9, 1)
    pair.now += 0.2
    assert health_of(pair)[0] == "stale"


def test_labels_that_are_published_again_are_no_sign_of_health(pair):
    hung = replace(made(20), captured_at=10.4, published_at=10.5, source_at=10.0)
    for index in range(20, 26):
        pair.board.offer(replace(hung, frame_index=index))
        pair.now += 1.0
    assert health_of(pair) == ("stale", 6.0, 1.0, 6)
    shown = pair.reader.figures()
    assert pair.reader.source_age_s(shown) == pytest.approx(0.5 + 1.0)
    pair.board.offer(made(26))
    assert health_of(pair) == ("ok", 0.0, 0.0, 7)


def test_health_is_starting_until_there_is_a_loop_and_then_for_as_long_as_results_may_take(pair):
    told, pair.facts = pair.facts, None
    pair.board.begin_anew()
    pair.now += 60.0
    assert health_of(pair)[0] == "starting"
    pair.board.begin()
    pair.facts = told
    pair.board.write_facts()
    pair.now += 4.9
    assert health_of(pair)[0] == "starting"
    pair.now += 0.2
    assert health_of(pair)[0] == "stale"


def test_figures_count_all_results(pair):
    for step_ms in (0.5, 20.0, 9000.0):
        pair.board.offer(made(step_ms=step_ms))
    figures = pair.reader.figures()
    assert [index for index, count in enumerate(figures.step.counts) if count] == [0, 4, 12]
    assert figures.step.sum_s == pytest.approx(9.0205)
    assert (sum(figures.age.counts), figures.age.sum_s) == (3, 1.5)


def test_fast_results_share_a_point_with_the_slowest(pair):
    for step_ms in (5.0, 9.0, 7.0):
        pair.board.offer(made(step_ms=step_ms))
        pair.now += 0.005
    pair.now += 1.0
    pair.board.offer(made(step_ms=3.0))
    points = [(point.number, point.step_ms) for point in pair.reader.points()]
    assert points == [(3, 9.0), (4, 3.0)]


def test_points_of_the_last_minute_are_kept_and_no_older_ones(pair):
    for _ in range(POINTS + 200):
        pair.board.offer(made())
        pair.now += 0.021
    points = pair.reader.points()
    assert [point.number for point in points] == list(range(points[0].number, POINTS + 201))
    assert 59.9 < pair.reader.now_s - points[0].at_s <= 60.0
    assert len(pair.reader.points(1.0)) == 47


def test_rate_is_that_of_late_and_falls_when_nothing_comes(pair):
    for _ in range(100):
        pair.board.offer(made())
        pair.now += 0.1
    assert pair.reader.fps() == pytest.approx(10.0, rel=0.03)
    pair.now += 4.0
    assert 0 < pair.reader.fps() < 3


def test_figures_are_never_torn_while_they_are_written():
    pair, stop = Pair(), threading.Event()

    def write():
        index = 0
        while not stop.is_set():
            index += 1
            pair.now += 0.03
            pair.board.offer(made(step_ms=1000.0))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2000):
            figures = pair.reader.figures()
            assert figures.step.sum_s == pytest.approx(figures.number)
            assert figures.newest_point is None or figures.newest_point.number == figures.number
    finally:
        stop.set()
        writer.join()


def test_facts_are_those_of_the_time_that_they_are_asked_for(pair):
    assert pair.reader.facts_number == 0
    pair.facts = {"source": "camera", "counts": {"results": 4}}
    pair.board.write_facts()
    assert (pair.reader.facts_number, pair.reader.facts(), pair.told) == (1, pair.facts, 1)
