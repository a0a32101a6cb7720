"""Results of a loop for asyncio: what waits does so on a thread of its own, so that other tasks go on."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def taken(take: Callable[[], T | None], stop: Callable[[], None]) -> AsyncGenerator[T, None]:
    """What `take`, which waits, gives until it gives None.

    When the task is cancelled while it waits, `stop` is called and waited for.

    Args:
        take: gives the next thing, or None at the end; called on a thread.
        stop: makes `take` return; called on a thread, because it may wait too.
    """
    events, thread = asyncio.get_running_loop(), _one_thread()
    try:
        while True:
            waiting = events.run_in_executor(thread, take)
            try:
                thing = await asyncio.shield(waiting)
            except asyncio.CancelledError:
                await away(stop)
                await asyncio.wait([waiting])
                raise
            if thing is None:
                return
            yield thing
    finally:
        thread.shutdown(wait=False)


async def away(call: Callable[[], T]) -> T:
    """What `call()` gives, called on a thread of its own: asyncio's default pool may have none left."""
    thread = _one_thread()
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, call)
    finally:
        thread.shutdown(wait=False)


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="edgeseg-async")
