"""A thread per sink, so that none holds the loop up."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from edgeseg.runtime.sinks.base import Sink, SinkSummary
from edgeseg.runtime.slot import LatestSlot

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

RESULTS_HELD = 8
"""Results that wait for a slow sink; beyond, the oldest is dropped. Each holds its frame: 6 MB at 1920x1080."""
BREAK_OFF_S = 1.0
"""How long sinks may go on writing what they hold when the run was broken off: the process ends within two seconds."""
_log = logging.getLogger(__name__)


class SinkThread:
    """Opens a sink, gives it its results on a thread of its own, and closes it.

    Args:
        wait: whether `put` waits for room instead of dropping: for sources that are not paced, where every result
            counts.
        held: results that wait at most.

    Raises:
        InputError: the sink cannot be opened.
    """

    def __init__(self, sink: Sink, *, wait: bool, held: int = RESULTS_HELD) -> None:
        self._sink, self._wait = sink, wait
        self._stop = threading.Event()
        self._slot: LatestSlot[Result] = LatestSlot(self._stop, capacity=held)
        self._given = self._written = 0
        self._has_dropped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgeseg-sink", daemon=True)
        sink.open()
        self._thread.start()

    def put(self, result: "Result") -> None:
        """Hand a result over; never waits for the sink unless told to.

        Raises:
            The sink's failure.
        """
        self.check()
        self._given += 1
        self._slot.put(result, wait=self._wait)
        if self._slot.dropped and not self._has_dropped:
            self._has_dropped = True
            _log.warning(
                "%s is too slow for the loop: results are left out of it, and counted at the end | a smaller video "
                "(--save-size), fewer files, or a faster disk",
                self._sink.name,
            )

    def check(self) -> None:
        """Raise the sink's failure, if it failed."""
        if self._failure is not None:
            raise self._failure

    def finish(self, timeout_s: float | None = None) -> None:
        """No more results will come: write those held, for `timeout_s` seconds at most, and end the thread."""
        self._slot.close()
        if not self._stop.is_set():
            self._thread.join(timeout_s)
            self._stop.set()
            # What it is writing when the time is over is still written.
            self._thread.join(BREAK_OFF_S / 4)

    def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Close the sink; one that hangs in its device is left behind, because closing it under its thread would crash.

        Takes what `__exit__` takes.
        """
        self.finish(BREAK_OFF_S)
        if self._thread.is_alive():
            _log.warning("%s does not answer | its thread was left behind", self._sink.name)
        else:
            self._sink.close(self._failure or error)

    @property
    def summary(self) -> SinkSummary:
        """What became of the results so far."""
        return SinkSummary(self._sink.name, self._written, self._given - self._written)

    def _run(self) -> None:
        try:
            while (result := self._slot.take()) is not None:
                self._sink.write(result)
                self._written += 1
        except BaseException as error:  # raised again by `put`, or at the end
            self._failure = error
            self._stop.set()
            self._slot.close()


class SinkThreads:
    """The threads of several sinks, as one thing to give results to; `sinking` makes it."""

    def __init__(self) -> None:
        self.threads: list[SinkThread] = []

    def __call__(self, result: "Result") -> None:
        """Hand a result to every sink; raises the failure of one that failed."""
        for thread in self.threads:
            thread.put(result)

    def finish(self, timeout_s: float | None = None) -> None:
        """Write what all hold, for `timeout_s` seconds at most. Raises the first failure."""
        self.end(timeout_s)
        for thread in self.threads:
            thread.check()

    def end(self, timeout_s: float | None = None) -> None:
        """`finish`, without the failures."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self.threads:
            thread.finish(None if deadline is None else max(0.0, deadline - time.monotonic()))

    @property
    def summaries(self) -> tuple[SinkSummary, ...]:
        """One per sink, in their order."""
        return tuple(thread.summary for thread in self.threads)


@contextmanager
def sinking(sinks: Sequence[Sink], *, wait: bool = False) -> Iterator[SinkThreads]:
    """Open `sinks` and run a thread for each; call what it gives with each result.

    At the end of the block what the sinks hold is written and they are closed; when the block is left by an error, or
    by Ctrl-C, what they hold is written for a second at most.

    Args:
        wait: see `SinkThread`.

    Raises:
        InputError: a sink cannot be opened or written; all are closed first.
    """
    threads = SinkThreads()
    with ExitStack() as stack:
        for sink in sinks:
            thread = SinkThread(sink, wait=wait)
            threads.threads.append(thread)
            stack.push(thread.close)
        stack.callback(threads.end, BREAK_OFF_S)
        yield threads
        threads.finish()
