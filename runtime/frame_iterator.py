"""Frames of one's own as a source: any iterator of (capture time, frame).

def frames():
    while camera.is_open():
        yield time.monotonic(), camera.grab()     # uint8 (H, W, 3) RGB

with Loop(session, frames()) as loop:
    ...
"""

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from itertools import chain, islice, pairwise

import numpy as np

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.capture import PLAUSIBLE_FPS
from edgeseg.runtime.source import Frame, Source

RATE_FRAMES = 5
"""The rate is that of the median time between so many frames: one that was held back does not count."""
FAR_S = 5.0
"""Times that lie further from the clock are of another one."""
_WANTED = "expected (seconds, uint8 (H, W, 3) RGB)"


class IteratorSource(Source):
    """Frames of an iterator, which paces them itself: the loop takes the newest one, and drops what it has no time for.

    Its first five items are taken at once, for the size and the rate; with `fps` only the first one.

    Args:
        frames: pairs of the capture time, in seconds on `clock`, and the frame, uint8 `(H, W, 3)` RGB, which is given
            away.
        fps: frames per second; None: by the times of the first five.
        paced: False: each frame waits until it is computed, as those of a recording, and its time may be any.
        clock: seconds; the loop's.

    Raises:
        SourceError: it has no item.
        InputError: an item is no such pair, its time is of another clock, or the rate is not known.
    """

    def __init__(
        self,
        frames: Iterable[tuple[float, np.ndarray]],
        *,
        fps: float | None = None,
        paced: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"a {type(frames).__name__}"
        self.paced = paced
        self._iterator = self._items = iter(frames)
        self._close = getattr(self._iterator, "close", None)
        self._next = 0
        item = next(self._items, None)
        if item is None:
            raise SourceError(f"{self.name} has no frames | {_WANTED}")
        first = [_checked(item, 0)]
        if paced:
            _check_clock(first[0][0], clock)
        if not fps:
            first += [_checked(item, index) for index, item in enumerate(islice(self._items, RATE_FRAMES - 1), start=1)]
        self.size_hw = first[0][1].shape[:2]
        self.fps, self.fps_origin = (fps, "given") if fps else (_rate(first), "measured")
        self._items = chain(first, self._items)

    def read(self, stop: threading.Event) -> Frame | None:
        item = None if stop.is_set() else next(self._items, None)
        if item is None or stop.is_set():
            return None
        captured_at_s, frame_rgb = _checked(item, self._next)
        index, self._next = self._next, self._next + 1
        return Frame(index, captured_at_s, frame_rgb)

    def close(self) -> None:
        # A generator that another thread is in, because it hangs, cannot be closed.
        if self._close is not None and not getattr(self._iterator, "gi_running", False):
            self._close()


def _checked(item: object, index: int) -> tuple[float, np.ndarray]:
    if not isinstance(item, tuple) or len(item) != 2:
        raise InputError(f"frame {index} of an iterator is a {type(item).__name__} | {_WANTED}")
    captured_at_s, frame_rgb = item
    is_time = isinstance(captured_at_s, (int, float)) and math.isfinite(captured_at_s)
    is_picture = isinstance(frame_rgb, np.ndarray) and frame_rgb.dtype == np.uint8
    if not is_time or not is_picture or frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or not frame_rgb.size:
        kind = f"{frame_rgb.dtype} {frame_rgb.shape}" if isinstance(frame_rgb, np.ndarray) else type(frame_rgb).__name__
        raise InputError(f"frame {index} of an iterator is ({captured_at_s!r}, {kind}) | {_WANTED}")
    return float(captured_at_s), frame_rgb


def _check_clock(captured_at_s: float, clock: Callable[[], float]) -> None:
    age_s = clock() - captured_at_s
    if abs(age_s) > FAR_S:
        raise InputError(
            f"the first frame of an iterator is {age_s:.6g} s old | its time is of another clock than the loop's: give "
            "time.monotonic(), not time.time(); a recording is opened by open_source with paced=False"
        )


def _rate(first: list[tuple[float, np.ndarray]]) -> float:
    times = [captured_at_s for captured_at_s, _ in first]
    period_s = statistics.median(after - before for before, after in pairwise(times)) if len(times) > 1 else 0.0
    if not period_s > 1.0 / PLAUSIBLE_FPS:
        raise InputError(
            f"an iterator whose first {len(times)} times lie {1e3 * period_s:.3g} ms apart tells no frame rate | give "
            "one: fps="
        )
    return 1.0 / period_s
