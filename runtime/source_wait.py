"""Waiting for a source that is not there yet, such as a camera that boots later than the machine."""

import logging
import math
import time
from collections.abc import Callable

from edgeseg.errors import SourceError
from edgeseg.runtime.camera import Reconnection
from edgeseg.runtime.run_log import event
from edgeseg.runtime.source import Source

_log = logging.getLogger(__name__)


def open_when_there(
    open_source: Callable[[], Source],
    *,
    limits: Reconnection | None = None,
    on_wait: Callable[[str], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Source:
    """Open a source, again and again until it is there, with waits as before a lost camera is opened again.

    Args:
        open_source: opens it, or raises SourceError where that may change.
        limits: its `first_wait_s`, `most_wait_s`, and `give_up_s` from the first try on; None: the default ones.
        on_wait: called with the reason before each wait, which is logged too.
        wait: waits so many seconds.
        clock: seconds.

    Raises:
        SourceError: it was given up; the last try's.
        EdgesegError: what another try would not change.
    """
    limits = limits or Reconnection()
    end_s = math.inf if limits.give_up_s is None else clock() + limits.give_up_s
    wait_s = limits.first_wait_s
    while True:
        try:
            return open_source()
        except SourceError as error:
            left_s = end_s - clock()
            if left_s <= 0:
                raise
            reason, wait_s = str(error).partition(" | ")[0], min(wait_s, left_s)
            told = event("camera_awaited", reason=reason, next_try_s=round(wait_s, 3))
            _log.warning("%s | waiting for it, next try in %.3g s", reason, wait_s, extra=told)
            if on_wait is not None:
                on_wait(reason)
        wait(wait_s)
        wait_s = min(2 * wait_s, limits.most_wait_s)
