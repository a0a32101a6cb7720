"""Tells systemd how the camera loop is (`Type=notify`, `WatchdogSec=`): ready, alive, stopping.

Alive is said when the network gives labels of another frame: a service whose engine hangs is restarted, also where
labels that were computed long ago are still moved along with the camera's frames. It is said too while the camera is
away and the loop tries to open it again: a restart would only do the same.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeseg.runtime.side_thread import beside

if TYPE_CHECKING:
    from edgeseg.runtime.loop import Loop
    from edgeseg.runtime.result import Result

PINGS_PER_TIMEOUT = 4
"""So often within the time of the watchdog it is told at most that the loop is alive."""
LOOKS_EVERY_S = 5.0
"""So often the loop is asked about its camera where no watchdog is in a hurry."""
START_S = 900
"""What a start may still take from each sign of life before it on: measuring takes minutes."""
_log = logging.getLogger(__name__)


class ServiceNotifier:
    """Datagrams to the service manager's socket.

    Args:
        address: path of the socket; one that begins with @ is in the abstract name space.
        watchdog_s: seconds without a sign of life after which the service is restarted; None: nobody watches.
        clock: seconds.
    """

    def __init__(
        self, address: str, *, watchdog_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s, self._clock = watchdog_s, clock
        self._last_source: int | None = None
        self._told_at_s: float | None = None
        self._is_away = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServiceNotifier | None":
        """The service manager that started this process; None when none did that wants to know."""
        address = environment.get("NOTIFY_SOCKET")
        if not address:
            return None
        own = environment.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
        period = environment.get("WATCHDOG_USEC", "") if own else ""
        return cls(address, watchdog_s=int(period) / 1e6 if period.isdigit() and int(period) else None)

    def on_result(self, result: "Result") -> None:
        """Ready at the first result; alive, not too often, at later ones whose labels are of another frame."""
        if result.source_index == self._last_source:
            return
        self._last_source = result.source_index
        now_s = self._clock()
        if self._told_at_s is None:
            self._send(f"READY=1\nSTATUS=running {result.configuration}")
        elif self._watchdog_s is not None and now_s - self._told_at_s >= self._watchdog_s / PINGS_PER_TIMEOUT:
            self._send("WATCHDOG=1" + (f"\nSTATUS=running {result.configuration}" if self._is_away else ""))
        else:
            return
        self._told_at_s, self._is_away = now_s, False

    def on_wait(self, loop: "Loop") -> None:
        """Alive, not too often, while `loop` gives nothing because its camera is away."""
        if not loop.waits_for_camera:
            return
        if self._told_at_s is None:
            self.starting("lost the camera, it is tried again")
            return
        now_s = self._clock()
        if self._watchdog_s is not None and now_s - self._told_at_s < self._watchdog_s / PINGS_PER_TIMEOUT:
            return
        if not self._is_away:
            self._send("WATCHDOG=1\nSTATUS=lost the camera, it is tried again")
        elif self._watchdog_s is not None:
            self._send("WATCHDOG=1")
        self._told_at_s, self._is_away = now_s, True

    def starting(self, status: str) -> None:
        """Not ready yet, for a reason that the limit of the start does not know."""
        self._send(f"EXTEND_TIMEOUT_USEC={START_S * 1_000_000}\nSTATUS={status}")

    @contextmanager
    def watching(self, loop: "Loop") -> Iterator[None]:
        """Look after `loop` now and then, until the block ends: `on_wait`."""
        period_s = LOOKS_EVERY_S if self._watchdog_s is None else self._watchdog_s / PINGS_PER_TIMEOUT

        def look(over: threading.Event) -> None:
            while not over.wait(period_s):
                self.on_wait(loop)

        with beside("edgeseg-watchdog", look):
            yield

    def stopping(self) -> None:
        """The loop has ended; what is left is closing files."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                # A manager that does not read must not hold the loop up: its watchdog would restart us anyway.
                channel.settimeout(1.0)
                channel.connect(self._address)
                channel.sendall(message.encode())
        except OSError as error:
            _log.warning("the service manager cannot be told %s (%s)", message.partition("\n")[0], error)


@contextmanager
def notifying(
    progress: "Callable[[Result], None] | None", notifier: ServiceNotifier | None
) -> "Iterator[Callable[[Result], None] | None]":
    """`progress`, and the service manager where there is one: what to call with each result of a loop."""
    if notifier is None:
        yield progress
        return

    def both(result: "Result") -> None:
        notifier.on_result(result)
        if progress is not None:
            progress(result)

    try:
        yield both
    finally:
        notifier.stopping()
