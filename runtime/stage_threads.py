"""Threads of a loop's stages: a failure stops all of them, the first one is told, and what hangs is left behind."""

import threading
import time
from collections.abc import Callable, Mapping

from edgeseg.runtime.slot import POLL_S


class StageThreads:
    """Runs each stage on a thread of its own, once.

    Args:
        stop: set when all are to end.
        wake: ends what stages wait for, after `stop` was set.
    """

    def __init__(self, stop: threading.Event, wake: Callable[[], None]) -> None:
        self._stop, self._wake = stop, wake
        self._threads: list[threading.Thread] = []
        self._left_behind: set[str] = set()
        self._lock = threading.Lock()
        self.failure: BaseException | None = None
        """The first one of a stage."""

    @property
    def have_started(self) -> bool:
        """Whether `start` was called."""
        return bool(self._threads)

    def start(self, stages: Mapping[str, Callable[[], None]]) -> None:
        """Start the threads, by the name of their stage."""
        for name, stage in stages.items():
            # A daemon: a process must be able to end while a driver hangs.
            thread = threading.Thread(target=self._guarded, args=(stage,), name=f"edgeseg-{name}", daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def stop(self, limits_s: Mapping[str, float]) -> set[str]:
        """End all stages, and wait for each as long as `limits_s` says; may be called more than once.

        Returns:
            Stages that hang. They are waited for once. A stage that calls this is not waited for.
        """
        self.tell_to_stop()
        begin_s = time.monotonic()
        for thread in self._threads:
            name = thread.name.removeprefix("edgeseg-")
            if thread is not threading.current_thread() and name not in self._left_behind:
                thread.join(max(0.0, begin_s + limits_s[name] - time.monotonic()))
                if thread.is_alive():
                    self._left_behind.add(name)
        return set(self._left_behind)

    def tell_to_stop(self) -> None:
        """End all stages, without waiting for them."""
        self._stop.set()
        self._wake()

    def note(self, error: BaseException) -> None:
        """`error` is what `raise_failure` raises, unless there was one before; the stages go on."""
        with self._lock:
            self.failure = self.failure or error

    def fail(self, error: BaseException) -> None:
        """`note` it, and stop all stages."""
        self.note(error)
        self.tell_to_stop()

    def raise_failure(self) -> None:
        """Raise the first failure, if there was one."""
        if self.failure is not None:
            raise self.failure

    def join(self) -> None:
        """Wait until all have ended, or are told to."""
        for thread in self._threads:
            while thread.is_alive() and not self._stop.is_set():
                thread.join(POLL_S)

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # whatever it is, it is raised again where the loop is used
            self.fail(error)
