"""Waiting for what other threads do."""

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def threads_of_loops() -> list[str]:
    """Names of the loops' threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-")]
