import threading

import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import Sink, sinking
from support.waiting import until


class Held(Sink):
    """Waits in each write until the test lets it."""

    name = "held"

    def __init__(self, allowed: int = 0) -> None:
        self.entered, self.allowed = threading.Semaphore(0), threading.Semaphore(allowed)
        self.indices: list[int] = []
        self.closed: list[BaseException | None] = []

    def write(self, result):
        self.entered.release()
        assert self.allowed.acquire(timeout=10)
        self.indices.append(result.frame_index)

    def close(self, error=None):
        self.closed.append(error)


class Broken(Held):
    """Fails at its third result."""

    name = "broken"

    def write(self, result):
        if result.frame_index == 2:
            raise InputError("the disk is full")
        self.indices.append(result.frame_index)


def test_a_slow_sink_drops_the_oldest_results_and_holds_up_neither_the_loop_nor_other_sinks(made):
    slow, fast = Held(), Held(allowed=1000)
    with sinking([slow, fast]) as put:
        put(made(0))
        assert slow.entered.acquire(timeout=10)
        for index in range(1, 31):
            put(made(index))
            until(lambda count=index: len(fast.indices) == count + 1)
        slow.allowed.release(1000)
    assert slow.indices == [0, *range(23, 31)]
    assert fast.indices == list(range(31))
    assert [(summary.written, summary.dropped) for summary in put.summaries] == [(9, 22), (31, 0)]


def test_a_sink_that_is_too_slow_is_told_once_and_at_once(made, caplog):
    slow = Held()
    with sinking([slow]) as put:
        put(made(0))
        assert slow.entered.acquire(timeout=10)
        for index in range(1, 9):
            put(made(index))
        assert caplog.records == []
        for index in range(9, 30):
            put(made(index))
        (record,) = caplog.records
        assert "held is too slow for the loop" in record.message
        slow.allowed.release(1000)


def test_every_result_is_written_when_the_source_waits(made):
    sink = Held(allowed=1000)
    with sinking([sink], wait=True) as put:
        for index in range(50):
            put(made(index))
    assert sink.indices == list(range(50))


def test_the_failure_of_a_sink_is_raised_and_all_are_closed(made):
    broken, other = Broken(), Held(allowed=1000)
    with pytest.raises(InputError, match="the disk is full"), sinking([broken, other]) as put:
        for index in range(3):
            put(made(index))
    assert str(broken.closed[0]) == "the disk is full"
    assert len(other.closed) == 1
    assert other.indices == [0, 1, 2]


def test_a_failure_while_the_source_waits_does_not_hang(made):
    with pytest.raises(InputError, match="the disk is full"), sinking([Broken()], wait=True) as put:
        for index in range(100):
            put(made(index))


def test_sinks_that_were_opened_are_closed_when_the_next_one_cannot_be(made, tmp_path):
    class Unopened(Held):
        def open(self):
            raise InputError("no such place")

    first = Held()
    with pytest.raises(InputError, match="no such place"), sinking([first, Unopened()]):
        pass
    assert len(first.closed) == 1


def test_a_sink_that_hangs_is_left_behind_when_the_run_is_broken_off(made):
    hanging = Held()
    with pytest.raises(KeyboardInterrupt), sinking([hanging]) as put:
        put(made(0))
        assert hanging.entered.acquire(timeout=10)
        raise KeyboardInterrupt
    assert hanging.closed == []
    hanging.allowed.release(1000)
