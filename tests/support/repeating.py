"""Something done again and again, beside a test."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(action: Callable[[int], None], *, every_s: float) -> Iterator[None]:
    """Call `action` with 0, 1, 2, ... on another thread until the block ends."""
    done = threading.Event()

    def act() -> None:
        for number in itertools.count():
            if done.wait(every_s):
                return
            action(number)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
