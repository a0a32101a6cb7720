"""The latest-frame slot: capture never waits for the network, and the network always gets the newest frame."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

POLL_S = 0.2
"""No wait lasts longer than this without looking at the stop event again."""


class LatestSlot(Generic[T]):
    """Holds the newest items only, `capacity` of them; older ones are dropped and counted, or waited for.

    Args:
        stop: when set, every wait ends.
        capacity: 1 for frames, more for results.
    """

    def __init__(self, stop: threading.Event, *, capacity: int = 1) -> None:
        self._stop = stop
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self.dropped = 0
        """Items that nobody took in time."""
        self._refused = 0

    @property
    def left(self) -> int:
        """Items that nobody will take, because it was stopped: those held, and those that waited for room."""
        return self._refused + len(self._items) if self._stop.is_set() else 0

    def put(self, item: T, *, wait: bool = False, replaces: Callable[[T], bool] | None = None) -> bool:
        """Add an item: drop the oldest one when there is no room, or with `wait` until there is. False when stopped.

        `replaces` tells of the items held which ones this one makes needless: they leave, and count as dropped.
        """
        with self._changed:
            if replaces is not None:
                kept = [held for held in self._items if not replaces(held)]
                self.dropped += len(self._items) - len(kept)
                self._items = deque(kept)
            while wait and len(self._items) >= self._capacity:
                if self._stop.is_set():
                    self._refused += 1
                    return False
                self._changed.wait(POLL_S)
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
        return not self._stop.is_set()

    def take(self, note: Callable[[T], None] | None = None, *, accepts: Callable[[T], bool] | None = None) -> T | None:
        """The oldest item held, waiting for one; None when the slot is closed and empty, or stopped.

        Args:
            note: called with the item before it leaves: whoever puts the next item does so after that.
            accepts: whether an item is wanted; one that is not leaves at once, and counts as dropped.
        """
        with self._changed:
            while True:
                while not self._items:
                    if self._closed or self._stop.is_set():
                        return None
                    self._changed.wait(POLL_S)
                if self._stop.is_set():
                    return None
                item = self._items.popleft()
                is_wanted = accepts is None or accepts(item)
                if is_wanted and note is not None:
                    note(item)
                self._changed.notify_all()
                if is_wanted:
                    return item
                self.dropped += 1

    def take_all(self) -> list[T]:
        """All items held, oldest first, waiting for one; empty when the slot is closed and empty, or stopped."""
        with self._changed:
            first = self.take()
            if first is None:
                return []
            items = [first, *self._items]
            self._items.clear()
            return items

    def close(self) -> None:
        """No more items will come: `take` gives what is left, then None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
