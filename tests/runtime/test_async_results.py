import asyncio

import numpy as np
import pytest

from edgeseg.data.video import Video
from edgeseg.errors import SourceError
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from support.sessions import HeldSession
from support.waiting import threads_of_loops, until


class Grey(Video):
    """Grey frames, the last of which may be missing."""

    name, fps, size_hw = "grey", 1000.0, (32, 48)

    def __init__(self, frames: int, broken_at: int | None = None) -> None:
        self._frames, self._broken_at = frames, broken_at

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        if index == self._broken_at:
            raise SourceError(f"grey broke at frame {index}")
        return np.full((32, 48, 3), 99, np.uint8)

    def labels(self, index: int) -> None:
        raise AssertionError(index)


@pytest.fixture
def session(bundle):
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        yield session


def test_results_come_in_order_until_the_source_ends(session):
    async def indices() -> list[int]:
        async with Loop(session, VideoSource(Grey(20), paced=False)) as loop:
            return [result.frame_index async for result in loop]

    assert asyncio.run(indices()) == list(range(20))
    until(lambda: threads_of_loops() == [])


def test_other_tasks_go_on_while_results_are_waited_for(session):
    held = HeldSession(session)

    async def main() -> int:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            # The network's step waits for this task: a blocked event loop would never let it go on.
            while turns < 100:
                turns += 1
                await asyncio.sleep(0)
            held.allowed.release(10)

        async with Loop(held, VideoSource(Grey(3), paced=False)) as loop:
            other = asyncio.create_task(turn())
            taken = [result async for result in loop]
            await other
        return len(taken)

    assert asyncio.run(main()) == 3


def test_a_task_that_is_cancelled_stops_the_loop_and_frees_its_threads(session):
    held = HeldSession(session)

    async def main() -> Loop:
        loop = Loop(held, VideoSource(Grey(1000), paced=False))

        async def consume() -> None:
            async for _ in loop:
                pass

        loop.start()
        consumer = asyncio.create_task(consume())
        await asyncio.to_thread(held.entered.acquire, timeout=10)
        consumer.cancel()
        await asyncio.to_thread(until, loop._pipeline._stop.is_set)
        # The step that is under way ends; no other one begins.
        held.allowed.release()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        return loop

    loop = asyncio.run(main())
    assert loop.summary.results <= 1
    until(lambda: threads_of_loops() == [])


def test_a_failure_of_the_source_is_raised_from_the_iteration(session):
    async def main() -> None:
        async with Loop(session, VideoSource(Grey(20, broken_at=7), paced=False)) as loop:
            async for _ in loop:
                pass

    with pytest.raises(SourceError, match="broke at frame 7"):
        asyncio.run(main())


def test_leaving_the_block_early_stops_the_loop(session):
    async def main() -> int:
        async with Loop(session, VideoSource(Grey(100_000), paced=False)) as loop:
            async for result in loop:
                if result.frame_index == 5:
                    break
        return loop.summary.results

    assert asyncio.run(main()) < 1000
    until(lambda: threads_of_loops() == [])
